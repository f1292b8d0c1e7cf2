"""Signals: sent once a settled batch, after the commit, and nobody waits for their receivers."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager

import django
import pytest
from django.core import mail
from django.core.cache import cache
from django.db import transaction
from django.dispatch import Signal

from pluginhost import PartialFailure, PermanentError, RetryableError, SkipEvent, host, signals
from pluginhost.delivery import accounts, news
from pluginhost.delivery.intake import take
from pluginhost.delivery.work import step
from pluginhost.models import Chunk, Delivery
from tests.docs_pages import DOCS, blocks, first_cells
from tests.samples import Recorder
from tests.steps import make_due, raising, run, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

PAGE = DOCS / "reference" / "signals.md"
SIGNALS = {name: signal for name, signal in vars(signals).items() if isinstance(signal, Signal)}
#: Seconds that everything here may take.
SOON = 15


@contextmanager
def connected(signal, receiver):
    signal.connect(receiver, weak=False)
    try:
        yield
    finally:
        signal.disconnect(receiver)


@pytest.fixture
def heard():
    """What all signals say, by their names, as soon as it is asked for."""
    found: dict[str, list[dict]] = {}
    receivers = {}
    for name, signal in SIGNALS.items():

        def receiver(sender, signal, name=name, **details) -> None:
            found.setdefault(name, []).append(details)

        receivers[name] = receiver
        signal.connect(receiver, weak=False)

    def read() -> dict[str, list[dict]]:
        assert signals.flush(SOON)
        return found

    yield read
    for name, receiver in receivers.items():
        SIGNALS[name].disconnect(receiver)


def documented() -> dict[str, list[str]]:
    """Signal -> its arguments, in their order, as the page lists them."""
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return {row[0].strip("|` "): [each.strip("` ") for each in row[1].split(",")] for row in rows}


# --- what is said ---


def test_each_signal_is_documented():
    assert list(documented()) == first_cells(PAGE.read_text()) == list(SIGNALS)


def test_each_outcome_of_a_batch_is_said_once(database, configure, heard):
    configure("outbox", folder={})
    ids = {}

    def act(batch) -> None:
        ids.update({event.name: event.message_id for event in batch})
        raise PartialFailure(
            {
                ids["dead"]: PermanentError("no"),
                ids["dead too"]: PermanentError("never"),
                ids["later"]: RetryableError("busy", retry_after=40),
                ids["much later"]: RetryableError("busy", retry_after=90),
                ids["skipped"]: SkipEvent("not for me"),
            }
        )

    Recorder.act["folder"] = act
    track("fine", "dead", "later", "skipped", "dead too", "much later")
    run(database, "folder")

    said = {"lane": "folder", "using": database}
    assert heard() == {
        "events_delivered": [{**said, "n": 1}],
        "events_skipped": [{**said, "n": 1}],
        "events_deferred": [{**said, "n": 2, "reason": "RetryableError: busy", "retry_in": 40}],
        "events_dead": [
            {**said, "n": 2, "message_ids": (ids["dead"], ids["dead too"]), "reason": "PermanentError: no"}
        ],
    }
    for name, [details] in heard().items():
        assert sorted(details) == sorted(documented()[name])


@pytest.mark.parametrize("lane", ["recorder", "folder"])
def test_what_waits_behind_a_failure_is_deferred_too(configure, heard, lane):
    configure("outbox", **{lane: {"RETRY_DELAY": 60, "MAX_ATTEMPTS": 2}})
    Recorder.act[lane] = raising(lambda: RetryableError("away"))
    track("a", "b", "c")

    run("default", lane)
    [details] = heard()["events_deferred"]
    assert (details["n"], details["reason"]) == (3, "RetryableError: away")
    assert 30 <= details["retry_in"] <= 60

    make_due()
    run("default", lane)
    [dead] = heard()["events_dead"]
    letters = set(Delivery.objects.filter(state="dead").values_list("message_id", flat=True))
    assert (dead["n"], set(dead["message_ids"])) == (3, letters)
    assert "events_delivered" not in heard()


def test_a_payload_that_can_t_be_read_is_dead_without_message_ids(configure, heard):
    configure("outbox", folder={})
    track("a", "b")
    take("default")
    Chunk.objects.update(payload=b"rubbish")

    assert run("default", "folder").done == 0

    [dead] = heard()["events_dead"]
    assert (dead["lane"], dead["n"], dead["message_ids"]) == ("folder", 2, ())
    assert dead["reason"] == Delivery.objects.get().reason


def test_what_is_of_forgotten_people_is_discarded(configure, heard, monkeypatch):
    configure("outbox", folder={})
    track("a", "b")
    take("default")
    Chunk.objects.update(payload=b"[null,null]")

    run("default", "folder")

    assert heard() == {
        "events_discarded": [{"lane": "folder", "n": 2, "reason": news.FORGOTTEN, "using": "default"}],
    }


# --- when ---


def test_receivers_see_what_was_committed(database, configure):
    configure("outbox", folder={})
    accounted = []

    def receiver(lane, using, **details) -> None:
        accounted.append(accounts.read(using)[lane]["delivered"])

    with connected(signals.events_delivered, receiver):
        for names in ("a", "b"), ("c",):
            track(*names)
            run(database, "folder")
            assert signals.flush(SOON)

    assert accounted == [2, 3]


def test_nothing_is_said_of_what_was_rolled_back(configure, heard):
    configure("outbox", folder={})
    track("a")
    take("default")

    with transaction.atomic():
        step(host.registry.runners["folder"], "default")
        transaction.set_rollback(True)
    assert heard() == {}

    run("default", "folder")
    assert list(heard()) == ["events_delivered"]


def test_nothing_is_posted_when_nobody_listens(configure, monkeypatch):
    posted = []
    monkeypatch.setattr(signals._courier, "post", lambda *arguments: posted.append(arguments))
    configure("outbox", folder={})
    Recorder.act["folder"] = raising(lambda: PermanentError("no"), "b")
    track("a", "b")
    run("default", "folder")
    assert posted == []

    with connected(signals.events_dead, lambda **details: None):
        track("b")
        run("default", "folder")
    assert [signal for signal, _ in posted] == [signals.events_dead]


# --- receivers that misbehave ---


@pytest.mark.parametrize("make", [ValueError, SystemExit], ids=["exception", "exit"])
def test_a_receiver_that_raises_harms_nobody(configure, heard, caplog, make):
    configure("outbox", folder={})

    def receiver(**details) -> None:
        raise make("broken receiver")

    with connected(signals.events_skipped, receiver):
        Recorder.act["folder"] = raising(lambda: SkipEvent("no"))
        track("a")
        run("default", "folder")
        Recorder.act.clear()
        track("b")
        run("default", "folder")
        assert [each["n"] for each in heard()["events_delivered"]] == [1]

    assert "broken receiver" in caplog.text
    assert seen("folder") == ["b"]


def test_a_lane_does_not_wait_for_a_slow_receiver(configure):
    configure("outbox", folder={})
    entered, released = threading.Event(), threading.Event()

    def receiver(**details) -> None:
        entered.set()
        released.wait(SOON)

    try:
        with connected(signals.events_delivered, receiver):
            track("a")
            run("default", "folder")
            assert entered.wait(SOON)
            track("b")
            run("default", "folder")
            assert seen("folder") == ["a", "b"]
            assert not signals.flush(0)
    finally:
        released.set()
    assert signals.flush(SOON)


def test_what_is_too_much_for_slow_receivers_is_dropped_and_said_once(monkeypatch, caplog):
    monkeypatch.setattr(signals, "LIMIT", 3)
    courier = signals._Courier()
    entered, released, told = threading.Event(), threading.Event(), []

    def receiver(n, **details) -> None:
        entered.set()
        released.wait(SOON)
        told.append(n)

    try:
        with connected(signals.events_delivered, receiver):
            courier.post(signals.events_delivered, {"lane": "a", "n": 0})
            assert entered.wait(SOON)
            for number in range(1, 10):
                courier.post(signals.events_delivered, {"lane": "a", "n": number})
            released.set()
            assert courier.flush(SOON)
    finally:
        released.set()

    assert told == [0, 1, 2, 3]
    assert [record.getMessage() for record in caplog.records] == [
        "signals are dropped: 3 wait for receivers that are too slow"
    ]


def test_a_forked_child_sends_its_own():
    told = []
    with connected(signals.events_delivered, lambda n, **details: told.append(n)):
        signals.post(signals.events_delivered, lane="a", n=1)
        assert signals.flush(SOON)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signals.post(signals.events_delivered, lane="a", n=2)
                status = 0 if signals.flush(SOON) and told == [1, 2] else 2
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert told == [1]


# --- the example ---


def test_the_example_mails_about_dead_letters_once_an_hour(configure, settings):
    settings.ADMINS = ["ada@example.com"] if django.VERSION >= (6, 0) else [("Ada", "ada@example.com")]
    if django.VERSION >= (6, 1):
        settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    configure("outbox", folder={})
    [example] = [block for block in blocks(PAGE) if "mail_admins" in block.text]
    cache.clear()
    namespace: dict = {"__name__": "example"}
    exec(example.compiled(), namespace)
    try:
        Recorder.act["folder"] = raising(lambda: PermanentError("no such goal"))
        for _ in range(3):
            track("a")
            run("default", "folder")
            assert signals.flush(SOON)
    finally:
        assert signals.events_dead.disconnect(namespace["tell_admins"])
        cache.clear()

    [message] = mail.outbox
    assert "folder" in message.subject
    assert "no such goal" in message.body
