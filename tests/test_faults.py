"""Faults beside the plugins': damaged rows, a database that fails for a moment, and errors of the host's own."""

from __future__ import annotations

import uuid

import pytest
from django.db import OperationalError

from pluginhost import PermanentError, host
from pluginhost.delivery import lanes, settling, work
from pluginhost.delivery.intake import take
from pluginhost.delivery.work import step
from pluginhost.models import Account, Chunk, Delivery, Envelope
from pluginhost.workers.worker import drain
from tests.samples import Configured, Recorder
from tests.steps import account, make_due, raising, rounds, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


def refuse(*args, **keywords):
    raise OperationalError("server closed the connection unexpectedly")


def refuse_once(act):
    """The same, but only at the first call."""
    refused = []

    def acting(*args, **keywords):
        if not refused:
            refused.append(True)
            refuse()
        return act(*args, **keywords)

    return acting


def envelope(payload: bytes, **values) -> None:
    Envelope.objects.create(
        **{"envelope_id": uuid.uuid4(), "version": 1, "lanes": "folder", "n": 1, "payload": payload, **values}
    )


# --- the host's own faults ---


@pytest.mark.parametrize("lane", ["recorder", "folder"])
def test_a_fault_of_the_host_s_own_counts_attempts(database, configure, monkeypatch, caplog, lane):
    def fail(*args, **keywords):
        raise RuntimeError("a fault of our own")

    configure("outbox", **{lane: {"MAX_ATTEMPTS": 3}})
    monkeypatch.setattr(work, "_attempt", fail)
    track("a", "b")

    rounds(database, lane)
    waiting = Delivery.objects.get()
    assert (waiting.attempts, waiting.token, waiting.state) == (1, None, "waiting")
    assert "a fault of our own" in caplog.text
    rounds(database, lane, 2)

    assert sorted(Delivery.objects.values_list("event_name", "state")) == [("a", "dead"), ("b", "dead")]
    assert account(database, lane) == {"accepted": 2, "dead": 2}


def test_after_a_fault_of_the_host_s_own_events_arrive(database, configure, monkeypatch):
    configure("outbox", folder={})
    with monkeypatch.context() as patch:
        patch.setattr(work, "_attempt", lambda *args: {}["absent"])
        track("a", "b")
        rounds(database, "folder")

    rounds(database, "folder")

    assert seen("folder") == ["a", "b"]
    assert account(database, "folder") == {"accepted": 2, "delivered": 2}


# --- a database that fails for a moment ---


def test_an_outcome_that_could_not_be_written_is_written_again(database, configure, monkeypatch):
    monkeypatch.setattr(Recorder, "dedupes", False)
    configure("outbox", recorder={})
    track("a")
    take(database)
    monkeypatch.setattr(settling.accounts, "add", refuse_once(settling.accounts.add))

    step(host.registry.runners["recorder"], database)
    make_due()
    assert step(host.registry.runners["recorder"], database) is None

    assert seen("recorder") == ["a"]
    assert account(database, "recorder") == {"accepted": 1, "delivered": 1}
    assert Chunk.objects.count() == 0


def test_an_outcome_with_failures_is_written_once(database, configure, monkeypatch):
    configure("outbox", folder={}, recorder={"MAX_ATTEMPTS": 3})
    Recorder.act["recorder"] = raising(lambda: KeyError("colour"), "bad")
    track("a", "bad", "c")
    take(database)
    monkeypatch.setattr(settling.accounts, "add", refuse_once(settling.accounts.add))

    rounds(database, "recorder", 3)

    assert seen("recorder") == ["a", "c"]
    letter = Delivery.objects.get(lane="recorder")
    assert (letter.event_name, letter.state, letter.attempts) == ("bad", "dead", 3)
    assert account(database, "recorder") == {"accepted": 3, "delivered": 2, "dead": 1}


def test_what_could_not_be_read_is_not_claimed(database, configure, monkeypatch):
    monkeypatch.setattr(Recorder, "dedupes", False)
    configure("outbox", recorder={"ON_UNCERTAIN": "dead"})
    track("a", "b")
    take(database)

    with monkeypatch.context() as patch:
        patch.setattr(lanes, "_read", refuse)
        with pytest.raises(OperationalError):
            step(host.registry.runners["recorder"], database)
    left = Delivery.objects.get()
    assert (left.token, left.attempts) == (None, 0)

    drain(host.registry.runners, database)
    assert seen("recorder") == ["a", "b"]
    assert account(database, "recorder") == {"accepted": 2, "delivered": 2}


# --- damaged rows ---


@pytest.mark.parametrize(
    ("payload", "n"),
    [
        pytest.param(b"", 1, id="nothing"),
        pytest.param(b"garbage", 1, id="garbage"),
        pytest.param(b"[]", 1, id="empty"),
        pytest.param(b'[{"type":"track"},]', 1, id="no JSON"),
        pytest.param(b"[" * 9_000, 1, id="too deep"),
        pytest.param(b"[{},{}]", 1, id="too many"),
        pytest.param(b"[{}]", 2, id="too few"),
    ],
)
def test_a_damaged_envelope_takes_no_others_with_it(database, configure, payload, n):
    configure("outbox", folder={})
    track("a", "b")
    envelope(payload, n=n)
    track("c")

    drain(host.registry.runners, database)

    assert seen("folder") == ["a", "b", "c"]
    assert account(database, "folder") == {"accepted": 3 + n, "delivered": 3, "dead": n}


def test_an_envelope_of_a_version_that_never_was_is_dead(database, configure):
    configure("outbox", folder={})
    envelope(b"[{}]", version=0)
    track("a")

    drain(host.registry.runners, database)

    assert seen("folder") == ["a"]
    assert Delivery.objects.get().state == "dead"
    assert account(database, "folder") == {"accepted": 2, "delivered": 1, "dead": 1}


def test_a_lane_name_that_is_too_long_does_not_block_the_intake(database, configure):
    configure("outbox", folder={})
    envelope(b"[{}]", lanes=f"{'x' * 100},folder")
    track("a")

    drain(host.registry.runners, database)

    assert seen("folder") == ["a"]
    assert Envelope.objects.count() == 0
    assert all(len(lane) <= 63 for lane in Account.objects.values_list("lane", flat=True))


# --- what is logged ---


def tracebacks(caplog) -> int:
    return caplog.text.count("Traceback (most recent call last)")


def test_the_same_failure_in_a_row_is_logged_with_one_traceback(configure, caplog):
    configure("outbox", folder={})
    Recorder.act["folder"] = raising(lambda: OSError("no route to host"))
    track("a")

    rounds("default", "folder", 10)
    assert tracebacks(caplog) == 1

    Recorder.act["folder"] = raising(lambda: KeyError("colour"))
    rounds("default", "folder", 10)
    assert tracebacks(caplog) == 2


def test_a_failure_that_comes_back_is_logged_again(configure, caplog):
    configure("outbox", folder={})
    for _ in range(2):
        Recorder.act["folder"] = raising(lambda: OSError("no route to host"))
        track("a")
        rounds("default", "folder", 3)
        Recorder.act.clear()
        rounds("default", "folder")

    assert seen("folder") == ["a", "a"]
    assert tracebacks(caplog) == 2


def test_a_close_that_fails_shows_no_secret(configure, caplog, monkeypatch):
    def close(self):
        raise RuntimeError(f"could not say goodbye with {self.options.TOKEN.reveal()}")

    configure("outbox", configured={"URL": "https://example.com", "TOKEN": "s3cr3t-t0ken"})
    monkeypatch.setattr(Configured, "close", close)
    track("a")
    rounds("default", "configured")

    host.registry.runners["configured"].close()

    assert "could not say goodbye with ********" in caplog.text
    assert "s3cr3t-t0ken" not in caplog.text


def test_a_sweep_that_fails_after_the_commit_writes_nothing_twice(database, configure, monkeypatch):
    configure("outbox", folder={})
    Recorder.act["folder"] = raising(lambda: PermanentError("no"), "bad")
    track("a", "bad")

    monkeypatch.setattr(settling, "sweep_chunks", refuse)
    rounds(database, "folder")

    assert account(database, "folder") == {"accepted": 2, "delivered": 1, "dead": 1}
    assert Delivery.objects.count() == 1


def test_a_commit_whose_answer_was_lost_is_not_written_down_twice(database, configure, monkeypatch):
    configure("outbox", folder={"BATCH_SIZE": 2})
    Recorder.act["folder"] = raising(lambda: PermanentError("no"), "bad")
    track("a", "bad", "c", "d", "e")
    really, tries = settling._settle, []

    def lose_the_first_answer(*arguments):
        tries.append(arguments)
        settled = really(*arguments)
        if len(tries) == 1:
            raise OperationalError("the connection was lost")
        return settled

    monkeypatch.setattr(settling, "_settle", lose_the_first_answer)
    monkeypatch.setattr(settling, "PAUSES", (0.01,))
    rounds(database, "folder")
    assert account(database, "folder") == {"accepted": 5, "delivered": 1, "dead": 1, "waiting": 3}

    rounds(database, "folder")
    assert account(database, "folder") == {"accepted": 5, "delivered": 4, "dead": 1}
    assert sorted(seen("folder")) == ["a", "c", "d", "e"]
