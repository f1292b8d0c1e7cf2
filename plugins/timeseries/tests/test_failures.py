"""What cannot be counted harms nothing else, and counts when it is replayed."""

from __future__ import annotations

import datetime as dt
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.db import DataError, InterfaceError, OperationalError, connections

from pluginhost import Batch, PartialFailure, PermanentError, RetryableError, Subject
from pluginhost.delivery.runner import Runner
from pluginhost.loading import Loaded
from pluginhost_timeseries import EventCount
from pluginhost_timeseries.models import LedgerEntry
from plugins.timeseries.tests.helpers import count, event, plugin
from plugins.timeseries.tests.models import DailyProduct, ProductTotals
from tests.site.models import Product

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.django_db(databases="__all__", transaction=True),
    pytest.mark.usefixtures("registered"),
]

LATEST = dt.datetime(9999, 12, 31, 23, tzinfo=dt.UTC)


@pytest.fixture
def product(database: str) -> Product:
    return Product.objects.create(name="lamp")


@pytest.mark.parametrize(
    ("name", "subject", "value", "reason"),
    [
        ("seen", Subject(model="shop.Nothing", pk="1"), None, "there is no model 'shop.Nothing'"),
        ("seen", Subject(model="nonsense", pk="1"), None, "there is no model 'nonsense'"),
        ("seen", Subject(model="shop.Product", pk="x"), None, "'x' is no key of shop.Product"),
        ("seen", Subject(model="shop.Country", pk="x" * 300), None, "300 characters"),
        ("product viewed", Subject(model="shop.Product", pk="1"), 1.5, "not a whole number"),
        ("product viewed", Subject(model="shop.Product", pk="1"), 2**31, "too large"),
        ("order paid", Subject(model="shop.Product", pk="1"), -1e6, "too large"),
        ("seen", None, 1e300, "too large"),
    ],
)
def test_an_event_that_cannot_be_counted_fails_alone(
    product: Product, name: str, subject: Subject | None, value: float | None, reason: str
) -> None:
    good, bad = event("click_throughs", product), event(name, subject, value)
    with pytest.raises(PartialFailure) as caught:
        count(good, bad, event("signed up"))
    assert list(caught.value.errors) == [bad.message_id]
    error = caught.value.errors[bad.message_id]
    assert isinstance(error, PermanentError)
    assert reason in str(error)
    assert DailyProduct.objects.get().click_throughs == 1
    assert EventCount.objects.get().name == "signed up"
    assert not LedgerEntry.objects.filter(message_id=bad.message_id).exists()


def test_an_event_outside_of_the_calendar_of_a_zone_fails_alone(product: Product) -> None:
    bad = event("signed up", at=LATEST)
    with pytest.raises(PartialFailure) as caught:
        count(bad, event("click_throughs", product), TIME_ZONE="Asia/Tokyo")
    assert list(caught.value.errors) == [bad.message_id]


def test_what_failed_counts_when_it_is_replayed(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = event("product viewed", product), event("product viewed", product, 0.5)
    with pytest.raises(PartialFailure):
        count(good, bad)
    monkeypatch.setattr(DailyProduct, "events", {"product viewed": "seconds"})
    monkeypatch.setattr(ProductTotals, "events", {})
    count(good, bad)
    row = DailyProduct.objects.get()
    assert (row.impressions, row.seconds) == (1, 0.5)


def test_a_sum_below_zero_in_a_positive_counter_is_refused_and_leaves_nothing(product: Product) -> None:
    below = event("product viewed", product, -3)
    count(event("product viewed", product, 2))
    with pytest.raises(PermanentError):
        count(below, event("signed up"))
    assert DailyProduct.objects.get().impressions == 2
    assert ProductTotals.objects.get().views == 2
    assert not EventCount.objects.exists()
    count(event("product viewed", product, 5))
    count(below)
    assert DailyProduct.objects.get().impressions == 4


@pytest.mark.parametrize(("name", "largest"), [("product viewed", 2**31 - 1), ("order paid", 999999.99)])
def test_a_sum_that_the_column_cannot_hold_is_refused(product: Product, name: str, largest: float) -> None:
    count(event(name, product, largest))
    over = event(name, product, 1)
    with pytest.raises(PermanentError):
        count(over)
    row = DailyProduct.objects.get()
    assert (row.impressions, row.revenue) in [(largest, 0), (0, Decimal("999999.99"))]
    with pytest.raises(PermanentError, match="sum of the batch is too large"):
        count(event(name, product, largest), event(name, product, 1))
    count(event(name, product, -1))
    count(over)


def test_64_bits_are_never_left(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DailyProduct, "events", {})
    count(event("views", product, 2**63 - 1))
    with pytest.raises(PermanentError):
        count(event("views", product, 1))
    assert ProductTotals.objects.get().views == 2**63 - 1


def test_the_host_finds_the_one_event_that_the_database_refuses(product: Product) -> None:
    counting = plugin()
    events = [event("product viewed", product) for _ in range(9)]
    events[4] = event("product viewed", product, -100)
    events[7] = event("product viewed", product, 0.5)
    loaded = Loaded(counting, None, ("aggregate",), "aggregate", counting.aggregate)  # type: ignore[arg-type]
    result = Runner(loaded).run(events)
    assert sorted(result.failures) == [4, 7]
    assert all(failure.dead for failure in result.failures.values())
    assert result.delivered == 7
    assert DailyProduct.objects.get().impressions == 7


@contextmanager
def failing(database: str, error: Exception, when: str) -> Iterator[None]:
    """Make the database raise ``error`` for statements that contain ``when``."""

    def wrapper(execute: Any, sql: str, *rest: Any) -> Any:
        if when in sql.replace("`", '"'):
            raise error
        return execute(sql, *rest)

    with connections[database].execute_wrapper(wrapper):
        yield


@pytest.mark.parametrize("error", [OperationalError("server closed the connection"), InterfaceError("closed")])
@pytest.mark.parametrize("when", ["ledgerentry", "shop_dailyproduct", "shop_producttotals"])
def test_a_database_that_is_away_is_tried_again(database: str, product: Product, error: Exception, when: str) -> None:
    events = [event("product viewed", product), event("signed up")]
    with failing(database, error, when), pytest.raises(RetryableError):
        count(*events)
    assert not LedgerEntry.objects.exists()
    count(*events)
    assert (DailyProduct.objects.get().impressions, EventCount.objects.get().count) == (1, 1)


def test_the_reason_quotes_no_row(database: str) -> None:
    error = DataError("value too long\nDETAIL: Failing row contains (secret)")
    with failing(database, error, "eventcount"), pytest.raises(PermanentError, match=r"^DataError: value too long$"):
        count(event("signed up"))


def test_a_failure_to_prune_is_no_failure_of_the_batch(database: str, caplog: pytest.LogCaptureFixture) -> None:
    with failing(database, OperationalError("locked"), 'FROM "pluginhost_timeseries_ledgerentry" WHERE "pl'):
        plugin().aggregate(Batch([event("signed up")]))
    assert EventCount.objects.get().count == 1
    assert "could not be pruned" in caplog.text
