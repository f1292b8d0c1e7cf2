"""What is thrown away with time: old dead letters, the days of old accounts, chunks that nobody reads."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db.models.functions import Now

from pluginhost import PermanentError, signals
from pluginhost.delivery.intake import take
from pluginhost.models import Account, Chunk, Delivery
from pluginhost.operations import retention
from pluginhost.operations.retention import EPOCH, clean
from tests.samples import Recorder
from tests.steps import account, raising, run, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)
NOTHING = {"dead_letters": 0, "accounts": 0, "chunks": 0}


def days_ago(days):
    return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=days)


def two_dead(database, configure, **settings):
    configure("outbox", recorder={}, **settings)
    Recorder.act["recorder"] = raising(lambda: PermanentError("no"))
    track("a", "b")
    run(database, "recorder")


def test_dead_letters_are_discarded_so_many_days_after_their_death(database, configure):
    two_dead(database, configure, DEAD_LETTER_DAYS=7)
    # An event that waited for long before it died is kept as long as any other.
    Delivery.objects.update(created=Now() - dt.timedelta(days=100))
    Delivery.objects.filter(event_name="a").update(due_at=Now() - dt.timedelta(days=7, minutes=1))
    Delivery.objects.filter(event_name="b").update(due_at=Now() - dt.timedelta(days=6, hours=23))
    told = []

    def hear(lane, n, reason, **_):
        told.append((lane, n, reason))

    signals.events_discarded.connect(hear)
    try:
        assert clean(database) == {**NOTHING, "dead_letters": 1}
    finally:
        signals.events_discarded.disconnect(hear)

    assert told == [("recorder", 1, "older than DEAD_LETTER_DAYS")]
    assert Delivery.objects.get().event_name == "b"
    assert account(database, "recorder") == {"accepted": 2, "dead": 1, "discarded": 1}
    assert clean(database) == NOTHING


def test_a_death_is_dated_when_it_happens(database, configure):
    two_dead(database, configure, DEAD_LETTER_DAYS=1)
    assert Delivery.objects.filter(due_at__lte=Now()).count() == 2
    assert clean(database) == NOTHING


def test_dead_letters_may_be_kept_for_ever(database, configure):
    two_dead(database, configure, DEAD_LETTER_DAYS=None)
    Delivery.objects.update(due_at=Now() - dt.timedelta(days=5000))
    assert clean(database) == NOTHING
    assert account(database, "recorder") == {"accepted": 2, "dead": 2}


def test_what_waits_is_never_thrown_away(database, configure):
    configure("outbox", recorder={}, DEAD_LETTER_DAYS=1)
    track("a")
    take(database)
    Delivery.objects.update(due_at=Now() - dt.timedelta(days=500), created=Now() - dt.timedelta(days=500))
    assert clean(database) == NOTHING
    assert account(database, "recorder") == {"accepted": 1, "waiting": 1}


def test_old_accounts_become_one_sum(database, configure, monkeypatch):
    monkeypatch.setattr(retention, "STEP", 3)
    configure("outbox", recorder={}, ACCOUNT_DAYS=10)
    for days in (9, 10, 11, 12, 400):
        for outcome, n in (("accepted", 5), ("delivered", 4), ("skipped", 1)):
            Account.objects.create(lane="recorder", day=days_ago(days), outcome=outcome, n=n)

    assert clean(database) == {**NOTHING, "accounts": 9}

    assert account(database, "recorder") == {"accepted": 25, "delivered": 20, "skipped": 5}
    assert sorted(Account.objects.filter(day=EPOCH).values_list("outcome", "n")) == [
        ("accepted", 15),
        ("delivered", 12),
        ("skipped", 3),
    ]
    assert Account.objects.exclude(day=EPOCH).count() == 6
    assert clean(database) == NOTHING

    Account.objects.create(lane="recorder", day=days_ago(11), outcome="accepted", n=2)
    Account.objects.create(lane="recorder", day=days_ago(11), outcome="delivered", n=2)
    assert clean(database) == {**NOTHING, "accounts": 2}
    assert account(database, "recorder") == {"accepted": 27, "delivered": 22, "skipped": 5}
    assert Account.objects.filter(day=EPOCH).count() == 3


def test_chunks_that_nobody_reads_go(database, configure):
    configure("outbox", recorder={})
    Chunk.objects.create(n=1, payload=b"[1]")
    kept = Chunk.objects.create(n=1, payload=b"[1]")
    Delivery.objects.create(lane="recorder", chunk=kept, version=1, n=1)
    assert clean(database) == {**NOTHING, "chunks": 1}
    assert Chunk.objects.get() == kept
