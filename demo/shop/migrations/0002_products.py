from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from django.db import migrations

if TYPE_CHECKING:
    from django.apps.registry import Apps
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor

FIELDS = ("slug", "category", "maker", "maker_url", "name", "price", "tagline", "description")
PRODUCTS = [
    (
        "teapot",
        "Pots",
        "Osk Pottery",
        "https://example.org/osk-pottery",
        "Round teapot",
        Decimal("48.00"),
        "Four cups, and no drip",
        "Thrown in one piece, with a spout that was shaped five times until it stopped dripping. The glaze is matt outside and clear inside, so that tea leaves no taste behind.",
    ),
    (
        "mug",
        "Cups",
        "Osk Pottery",
        "https://example.org/osk-pottery",
        "Everyday mug",
        Decimal("18.50"),
        "For the hand that is cold in the morning",
        "Stoneware, a thumb's rest on the handle, and a foot that leaves no ring on the table. It goes into the dishwasher and comes out as it was.",
    ),
    (
        "bowl",
        "Cups",
        "Mirela Ban",
        "https://example.org/mirela-ban",
        "Breakfast bowl",
        Decimal("22.00"),
        "Deep enough for porridge and plums",
        "A low, wide bowl with a blue line that the potter draws in one go. No two lines are alike.",
    ),
    (
        "vase",
        "Pots",
        "Mirela Ban",
        "https://example.org/mirela-ban",
        "Bud vase",
        Decimal("26.00"),
        "For one branch, or three tulips",
        "A narrow neck that holds a single stem upright. Fired twice, and tight.",
    ),
    (
        "sencha",
        "Pantry",
        "Ishikawa Tea Garden",
        "https://example.org/ishikawa",
        "Sencha, first flush",
        Decimal("14.20"),
        "80 g in a tin",
        "Steamed green tea from the hills above Shizuoka, picked in the first days of May. Brew it at 70 °C for a minute.",
    ),
    (
        "honey",
        "Pantry",
        "Old Orchard Bees",
        "https://example.org/old-orchard",
        "Lime blossom honey",
        Decimal("9.80"),
        "From eleven hives behind the workshop",
        "Clear in summer, creamy in winter, and a little of mint in between.",
    ),
    (
        "towel",
        "Linen and wood",
        "Gorzów Linen Mill",
        "https://example.org/gorzow-linen",
        "Linen tea towel",
        Decimal("12.00"),
        "Dries glasses without lint",
        "Half-bleached linen, woven in Silesia. Stiff on the first day, and soft for the ten years after.",
    ),
    (
        "tray",
        "Linen and wood",
        "Turned by Jonas",
        "https://example.org/jonas",
        "Ash wood tray",
        Decimal("39.00"),
        "Carries four mugs and a pot",
        "A round tray with a low edge, turned from one board. Oiled and not varnished, so that a scratch can be rubbed out.",
    ),
]


def add(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    product = apps.get_model("shop", "Product")
    product.objects.using(schema_editor.connection.alias).bulk_create(
        product(**dict(zip(FIELDS, values, strict=True))) for values in PRODUCTS
    )


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]

    operations = [migrations.RunPython(add, migrations.RunPython.noop)]
