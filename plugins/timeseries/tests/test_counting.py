"""Which counter an event goes to, and what it adds."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from pluginhost import Batch, PartialFailure, SkipEvent, Subject
from pluginhost_timeseries import EventCount, site
from plugins.timeseries.tests.helpers import DAY, NOON, count, event, plugin
from plugins.timeseries.tests.models import DailyProduct, Furniture, ProductTotals
from tests.site.models import Country, Order, Product, Voucher

if TYPE_CHECKING:
    from pytest_django.fixtures import SettingsWrapper

pytestmark = [
    pytest.mark.django_db(databases="__all__", transaction=True),
    pytest.mark.usefixtures("database", "registered"),
]


@pytest.fixture
def product() -> Product:
    return Product.objects.create(name="lamp")


def test_an_event_counts_one_in_every_data_model_of_its_subject(product: Product) -> None:
    other = Product.objects.create(name="chair")
    count(event("product viewed", product), event("product viewed", product), event("product viewed", other))
    row = DailyProduct.objects.for_parent(product).get()
    assert (row.impressions, row.click_throughs, row.collected_during, row.parent) == (2, 0, DAY, product)
    assert row.note == "new"
    totals = ProductTotals.objects.for_parent(product).get()
    assert totals.views == 2
    assert totals.first_seen is not None, "the database's own default"
    assert ProductTotals.objects.for_parent(other).get().views == 1
    assert not EventCount.objects.exists()


def test_an_event_without_a_mapping_counts_into_the_field_of_its_name(product: Product) -> None:
    count(event("click_throughs", product))
    assert DailyProduct.objects.get().click_throughs == 1
    assert not ProductTotals.objects.exists()


@pytest.mark.parametrize("name", ["id", "parent_object_id", "parent_content_type", "note", "collected_during"])
def test_only_numeric_fields_are_counters(product: Product, name: str) -> None:
    count(event(name, product))
    assert not DailyProduct.objects.exists()
    assert EventCount.objects.get().name == name


def test_the_value_of_an_event_is_what_it_adds(product: Product) -> None:
    count(
        event("product viewed", product, 5),
        event("product viewed", product, 2.0),
        event("order paid", product, 19.99),
        event("order paid", product, 0.01),
        event("seconds", product, 1.5),
    )
    row = DailyProduct.objects.get()
    assert (row.impressions, row.revenue, row.seconds) == (7, Decimal("20.00"), 1.5)


def test_a_value_of_zero_is_not_one(product: Product) -> None:
    count(event("product viewed", product, 0))
    assert DailyProduct.objects.get().impressions == 0


def test_decimal_counters_round_to_their_places_and_add_up_exactly(product: Product) -> None:
    for _ in range(3):
        count(event("order paid", product, 0.1), event("order paid", product, 0.104))
    assert DailyProduct.objects.get().revenue == Decimal("0.60")


def test_negative_values_decrement(product: Product) -> None:
    count(event("product viewed", product, 5), event("click_throughs", product, -3))
    count(event("product viewed", product, -2), event("order paid", product, -1.5), event("seconds", product, -1))
    row = DailyProduct.objects.get()
    assert (row.impressions, row.click_throughs, row.revenue, row.seconds) == (3, -3, Decimal("-1.50"), -1.0)
    count(event("product viewed", product, -3))
    assert DailyProduct.objects.get().impressions == 0


def test_a_batch_may_raise_and_lower_at_once(product: Product) -> None:
    others = [Product.objects.create(name=str(number)) for number in range(3)]
    count(*[event("product viewed", each, 10) for each in others])
    count(
        event("product viewed", product, 4),
        event("product viewed", others[0], -4),
        event("product viewed", others[1], -4),
        event("product viewed", others[1], 1),
    )
    seen = [DailyProduct.objects.for_parent(each).get().impressions for each in (product, *others)]
    assert seen == [4, 6, 7, 10]


def test_parents_have_integer_uuid_and_text_keys() -> None:
    product = Product.objects.create(name="lamp")
    voucher = Voucher.objects.create()
    country = Country.objects.create(code="é")
    count(*[event("click_throughs", parent) for parent in (product, voucher, country)])
    for parent in (product, voucher, country):
        row = DailyProduct.objects.for_parent(parent).get()
        assert row.click_throughs == 1
        assert row.parent == parent


def test_a_key_is_kept_in_one_form() -> None:
    key = uuid.uuid4()
    voucher = Voucher.objects.create(id=key)
    count(
        event("click_throughs", Subject(model="shop.Voucher", pk=key.hex.upper())),
        event("click_throughs", Subject(model="shop.voucher", pk=str(key))),
    )
    assert DailyProduct.objects.for_parent(voucher).get().click_throughs == 2


def test_a_proxy_model_is_its_concrete_model(product: Product) -> None:
    furniture = Furniture.objects.get(pk=product.pk)
    count(event("click_throughs", product))
    assert DailyProduct.objects.for_parent(furniture).get().click_throughs == 1
    assert site.is_registered(Furniture, DailyProduct)
    count(event("unheard of", product))
    assert EventCount.objects.for_subject(furniture).get().count == 1


def test_reading_for_an_unsaved_parent_is_refused() -> None:
    with pytest.raises(ValueError, match="not saved"):
        DailyProduct.objects.for_parent(Product(name="new"))


def test_counts_outlive_their_parent(product: Product) -> None:
    key = product.pk
    gone = event("click_throughs", product)
    product.delete()
    count(gone)
    row = DailyProduct.objects.get()
    assert (row.parent, row.parent_object_id, row.click_throughs) == (None, str(key), 1)
    assert str(row) == f"{key}, 2026-03-01"


def test_what_is_not_declared_is_counted_by_name_and_day(product: Product) -> None:
    order = Order.objects.create(number="7")
    count(
        event("signed up"),
        event("signed up", value=2.5),
        event("order paid", order, 10),
        event("wished for", product),
        event("signed up", at=NOON + dt.timedelta(days=1)),
    )
    rows = set(EventCount.objects.values_list("day", "name", "subject_type", "subject_id", "count", "total"))
    assert rows == {
        (DAY, "signed up", "", "", 2, Decimal("2.5")),
        (DAY, "order paid", "shop.Order", str(order.pk), 1, Decimal(10)),
        (DAY, "wished for", "shop.Product", str(product.pk), 1, Decimal(0)),
        (DAY + dt.timedelta(days=1), "signed up", "", "", 1, Decimal(0)),
    }
    assert EventCount.objects.for_subject(order).get().total == 10
    assert str(EventCount.objects.for_subject(order).get()) == "order paid, 2026-03-01: 1"


def test_totals_go_up_and_down() -> None:
    for value in (0.1, 0.2, -0.25):
        count(event("refunded", value=value))
    row = EventCount.objects.get()
    assert (row.count, row.total) == (3, Decimal("0.05"))


def test_without_generic_counters_the_undeclared_is_skipped(product: Product) -> None:
    skipped = event("signed up")
    with pytest.raises(PartialFailure) as caught:
        count(skipped, event("product viewed", product), GENERIC=False)
    assert {key: type(error) for key, error in caught.value.errors.items()} == {skipped.message_id: SkipEvent}
    assert not EventCount.objects.exists()
    assert DailyProduct.objects.get().impressions == 1


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        (None, dt.date(2026, 3, 1)),
        ("Europe/Berlin", dt.date(2026, 3, 2)),
        ("Pacific/Kiritimati", dt.date(2026, 3, 2)),
        ("America/New_York", dt.date(2026, 3, 1)),
    ],
)
def test_a_day_is_one_of_the_time_zone(product: Product, zone: str | None, day: dt.date) -> None:
    late = dt.datetime(2026, 3, 1, 23, 30, tzinfo=dt.UTC)
    count(event("product viewed", product, at=late), event("signed up", at=late), TIME_ZONE=zone)
    assert DailyProduct.objects.get().collected_during == day
    assert EventCount.objects.get().day == day


def test_the_zone_is_that_of_the_project_unless_given(settings: SettingsWrapper) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    count(event("signed up", at=dt.datetime(2026, 3, 1, 14, 59, tzinfo=dt.UTC)))
    count(event("signed up", at=dt.datetime(2026, 3, 1, 15, 0, tzinfo=dt.UTC)))
    assert [row.day.day for row in EventCount.objects.order_by("day")] == [1, 2]


def test_after_unregister_an_event_is_undeclared(product: Product) -> None:
    site.unregister(Product, DailyProduct)
    count(event("product viewed", product), event("click_throughs", product))
    assert not DailyProduct.objects.exists()
    assert ProductTotals.objects.get().views == 1
    assert EventCount.objects.get().name == "click_throughs"


def test_a_batch_of_thousands(product: Product) -> None:
    products = [Product(name=str(number)) for number in range(600)]
    Product.objects.bulk_create(products)
    events = [event("product viewed", each) for each in products] + [event(f"event {n}") for n in range(1200)]
    counting = plugin()
    counting.aggregate(Batch(events))
    counting.aggregate(Batch([event("product viewed", each, -1) for each in products]))
    assert DailyProduct.objects.filter(impressions=0).count() == 600
    assert EventCount.objects.count() == 1200
