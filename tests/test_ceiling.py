"""BACKLOG_LIMIT: a lane that is full discards what is new, counts it and says so; no other lane notices."""

from __future__ import annotations

import logging

import pytest
from django.db import DatabaseError

from pluginhost import PermanentError, RetryableError, host, signals
from pluginhost.delivery import accounts, ceiling
from pluginhost.delivery.intake import take
from pluginhost.models import Chunk, Delivery, Envelope
from pluginhost.workers.worker import drain
from tests.samples import Recorder
from tests.steps import account, raising, run, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """As in a new process: no lane has been said to be full."""
    monkeypatch.setattr(ceiling, "_full", set())


@pytest.fixture
def told(monkeypatch):
    """What the signals said: (signal, lane, details)."""
    heard = []
    monkeypatch.setattr(signals, "post", signals.announce)  # in this thread

    def full(lane, limit, using, **_):
        heard.append(("full", lane, limit, using))

    def discarded(lane, n, reason, using, **_):
        heard.append(("discarded", lane, n, reason, using))

    signals.backlog_full.connect(full)
    signals.events_discarded.connect(discarded)
    yield heard
    signals.backlog_full.disconnect(full)
    signals.events_discarded.disconnect(discarded)


def test_what_is_new_goes_and_what_waits_stays(database, configure, told):
    configure("outbox", recorder={"BACKLOG_LIMIT": 3}, folder={})
    for name in "abcde":
        track(name)

    assert take(database) == 5

    assert account(database, "recorder") == {"accepted": 5, "waiting": 3, "discarded": 2}
    assert account(database, "folder") == {"accepted": 5, "waiting": 5}
    assert told == [("full", "recorder", 3, database), ("discarded", "recorder", 2, "the backlog is full", database)]
    drain(host.registry.runners, database)
    assert seen("recorder") == ["a", "b", "c"]
    assert sorted(seen("folder")) == ["a", "b", "c", "d", "e"]
    assert account(database, "recorder") == {"accepted": 5, "delivered": 3, "discarded": 2}
    assert Chunk.objects.count() == 0


def test_an_envelope_that_fits_in_part_is_taken_in_part(database, configure):
    configure("outbox", recorder={"BACKLOG_LIMIT": 2}, folder={"BACKLOG_LIMIT": 3})
    track("a", "b", "c", "d")

    take(database)

    assert account(database, "recorder") == {"accepted": 4, "waiting": 2, "discarded": 2}
    assert account(database, "folder") == {"accepted": 4, "waiting": 3, "discarded": 1}
    drain(host.registry.runners, database)
    assert (seen("recorder"), seen("folder")) == (["a", "b"], ["a", "b", "c"])
    assert Chunk.objects.count() == 0


def test_dead_letters_and_finished_events_take_no_room(database, configure):
    configure("outbox", recorder={"BACKLOG_LIMIT": 2})
    Recorder.act["recorder"] = raising(lambda: PermanentError("no"), "b")
    track("a", "b")
    run(database, "recorder")
    assert account(database, "recorder") == {"accepted": 2, "delivered": 1, "dead": 1}

    track("c", "d", "e")
    take(database)

    assert account(database, "recorder") == {"accepted": 5, "delivered": 1, "dead": 1, "waiting": 2, "discarded": 1}


def test_what_failed_and_waits_on_its_own_takes_room(database, configure):
    configure("outbox", folder={"BACKLOG_LIMIT": 2, "RETRY_DELAY": 60})
    Recorder.act["folder"] = raising(lambda: RetryableError("away"))
    track("a")
    run(database, "folder")
    track("b")
    track("c")
    take(database)
    assert account(database, "folder") == {"accepted": 3, "waiting": 2, "discarded": 1}


def test_it_is_said_once_until_there_is_room_again(database, configure, told, caplog):
    configure("outbox", recorder={"BACKLOG_LIMIT": 2})
    caplog.set_level(logging.WARNING, "pluginhost.delivery")
    for _ in range(3):
        track("a", "b")
        take(database)
    assert caplog.text.count("lane recorder is full") == 1
    assert [each[0] for each in told] == ["full", "discarded", "discarded"]

    drain(host.registry.runners, database)
    track("c")
    take(database)
    assert caplog.text.count("lane recorder has room again") == 1
    track("d", "e")
    take(database)
    assert caplog.text.count("lane recorder is full") == 2
    assert [each[0] for each in told].count("full") == 2
    assert account(database, "recorder") == {"accepted": 9, "delivered": 2, "waiting": 2, "discarded": 5}


def test_an_alias_that_is_not_enabled_has_no_limit(database, configure):
    configure("outbox", recorder={"BACKLOG_LIMIT": 1})
    track("a")
    track("b")
    configure("outbox", folder={})
    take(database)
    assert account(database, "recorder") == {"accepted": 2, "waiting": 2}


def test_a_damaged_envelope_beyond_the_limit_goes_too(database, configure):
    configure("outbox", recorder={"BACKLOG_LIMIT": 2})
    track("a", "b", "c")
    Envelope.objects.update(payload=b"[{")
    take(database)
    assert account(database, "recorder") == {"accepted": 3, "discarded": 3}
    assert (Delivery.objects.count(), Chunk.objects.count()) == (0, 0)


def test_nothing_is_said_of_what_is_rolled_back(database, configure, told, monkeypatch):
    configure("outbox", recorder={"BACKLOG_LIMIT": 1})
    track("a", "b")

    def refuse(*_):
        raise DatabaseError("the disk is full")

    with monkeypatch.context() as patched, pytest.raises(DatabaseError):
        patched.setattr(accounts, "add", refuse)
        take(database)
    assert told == []
    take(database)
    assert [each[0] for each in told] == ["full", "discarded"]
