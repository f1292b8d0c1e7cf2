from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from django.db import migrations

if TYPE_CHECKING:
    from django.apps.registry import Apps
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor

# slug, name, price, tagline, description
PRODUCTS = [
    (
        "teapot",
        "Round teapot",
        "48.00",
        "Four cups, and no drip",
        "Thrown in one piece, with a spout that was shaped five times until it stopped dripping. The glaze is matt outside and clear inside, so that tea leaves no taste behind.",
    ),
    (
        "mug",
        "Everyday mug",
        "18.50",
        "For the hand that is cold in the morning",
        "Stoneware, a thumb's rest on the handle, and a foot that leaves no ring on the table. It goes into the dishwasher and comes out as it was.",
    ),
    (
        "bowl",
        "Breakfast bowl",
        "22.00",
        "Deep enough for porridge and plums",
        "A low, wide bowl with a blue line that the potter draws in one go. No two lines are alike.",
    ),
    (
        "vase",
        "Bud vase",
        "26.00",
        "For one branch, or three tulips",
        "A narrow neck that holds a single stem upright. Fired twice, and tight.",
    ),
    (
        "sencha",
        "Sencha, first flush",
        "14.20",
        "80 g in a tin",
        "Steamed green tea from the hills above Shizuoka, picked in the first days of May. Brew it at 70 °C for a minute.",
    ),
    (
        "honey",
        "Lime blossom honey",
        "9.80",
        "From eleven hives behind the workshop",
        "Clear in summer, creamy in winter, and a little of mint in between.",
    ),
    (
        "towel",
        "Linen tea towel",
        "12.00",
        "Dries glasses without lint",
        "Half-bleached linen, woven in Silesia. Stiff on the first day, and soft for the ten years after.",
    ),
    (
        "tray",
        "Ash wood tray",
        "39.00",
        "Carries four mugs and a pot",
        "A round tray with a low edge, turned from one board. Oiled and not varnished, so that a scratch can be rubbed out.",
    ),
]


def add(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    product = apps.get_model("shop", "Product")
    product.objects.using(schema_editor.connection.alias).bulk_create(
        product(slug=slug, name=name, price=Decimal(price), tagline=tagline, description=description)
        for slug, name, price, tagline, description in PRODUCTS
    )


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]

    operations = [migrations.RunPython(add, migrations.RunPython.noop)]
