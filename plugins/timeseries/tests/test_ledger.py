from __future__ import annotations

import datetime as dt

import pytest
from django.utils import timezone

from pluginhost import Batch, Person
from pluginhost_timeseries import EventCount, ledger
from pluginhost_timeseries.models import LedgerEntry
from plugins.timeseries.tests.helpers import event, plugin

pytestmark = [pytest.mark.django_db(databases="__all__", transaction=True), pytest.mark.usefixtures("database")]


def enter(number: int, age: dt.timedelta) -> None:
    LedgerEntry.objects.bulk_create(
        LedgerEntry(alias="timeseries", message_id=f"{age} {n}", created=timezone.now() - age) for n in range(number)
    )


def test_entries_are_kept_for_their_days_and_then_deleted() -> None:
    enter(3, dt.timedelta(days=9))
    enter(2, dt.timedelta(days=11))
    plugin(LEDGER_DAYS=10).aggregate(Batch([event("signed up")]))
    assert LedgerEntry.objects.filter(message_id__startswith="9 days").count() == 3
    assert LedgerEntry.objects.count() == 4


def test_the_database_writes_when_an_entry_was_made() -> None:
    plugin().aggregate(Batch([event("signed up", at=dt.datetime(2001, 1, 1, tzinfo=dt.UTC))]))
    assert abs(LedgerEntry.objects.get().created - timezone.now()) < dt.timedelta(minutes=1)


def test_pruning_is_rare_bounded_and_keeps_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PRUNED_AT_ONCE", 2)
    counting = plugin()
    enter(5, dt.timedelta(days=91))
    left = []
    for _ in range(4):
        counting.aggregate(Batch([event("signed up")]))
        left.append(LedgerEntry.objects.filter(message_id__startswith="91").count())
    assert left == [3, 1, 0, 0]
    enter(1, dt.timedelta(days=92))
    counting.aggregate(Batch([event("signed up")]))
    assert LedgerEntry.objects.filter(message_id__startswith="92").exists()


def test_aliases_do_not_share_their_ledger() -> None:
    one = event("signed up")
    plugin("timeseries").aggregate(Batch([one]))
    plugin("other").aggregate(Batch([one]))
    assert EventCount.objects.get().count == 2
    assert {entry.alias for entry in LedgerEntry.objects.all()} == {"timeseries", "other"}
    assert str(LedgerEntry.objects.get(alias="other")) == f"other {one.message_id}"


def test_an_event_is_explained_by_the_ledger() -> None:
    one = event("signed up")
    plugin().aggregate(Batch([one]))
    since = timezone.localtime(LedgerEntry.objects.get().created)
    expected = f"It is counted: the ledger has it since {since:%Y-%m-%d %H:%M:%S}."
    assert plugin().explain(one.message_id) == expected
    assert plugin(alias="other").explain(one.message_id) is None
    assert plugin().explain(event("never counted").message_id) is None


def test_counters_name_nobody() -> None:
    plugin().aggregate(Batch([event("signed up")]))
    assert plugin().forget(Person(user_ids=("7",))).startswith("Nothing is kept of a person")
    assert not plugin().personal_data
    assert EventCount.objects.get().count == 1
