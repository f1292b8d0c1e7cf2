"""What a worker watches: calls that hang, lanes that die or do not end, and how long it rests and drains."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager

import pytest
from django.db import connections

from pluginhost import RetryableError, host
from pluginhost.delivery import lane_thread as module
from pluginhost.delivery.worker import LaneThread, Worker, drain
from tests.processes import nothing_waits, wait_until
from tests.samples import Folder, Recorder
from tests.steps import account, make_due, raising, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)
#: Seconds that everything here may take.
SOON = 15


class Working:
    """A worker in a thread of this process."""

    def __init__(self, seconds_to_stop: float) -> None:
        self.worker = Worker(host.registry.runners, "default")
        self.status: int | None = None
        self._seconds = seconds_to_stop
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.status = self.worker.run(seconds_to_stop=self._seconds)

    def ended(self) -> int | None:
        """Its exit status, as soon as it has ended."""
        self._thread.join(SOON)
        assert not self._thread.is_alive(), "it works on"
        return self.status

    def end(self) -> int | None:
        self.worker.end()
        return self.ended()


@contextmanager
def working(seconds_to_stop: float = 5.0):
    running = Working(seconds_to_stop)
    try:
        yield running
    finally:
        running.end()
        for thread in running.worker.threads:
            thread.join(SOON)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A worker that looks more often, and sooner takes a call to hang."""
    monkeypatch.setattr(module, "GRACE", 0.5)
    monkeypatch.setattr(module, "POLL_LAST", 0.1)


@pytest.fixture
def stuck():
    """What a call that hangs waits for. Nobody waits when the test is over."""
    event = threading.Event()
    yield event
    event.set()


@contextmanager
def released(event: threading.Event):
    """Whoever waits for it may go on after the block."""
    try:
        yield
    finally:
        event.set()


# --- healthy, however long it takes ---


@pytest.mark.parametrize(("lane", "options"), [("recorder", {}), ("folder", {"BATCH_SIZE": 2})])
def test_a_slow_lane_is_not_taken_to_hang(configure, monkeypatch, lane, options):
    monkeypatch.setattr(Recorder, "dedupes", False)
    configure("outbox", **{lane: {"TIMEOUT": 0.5, **options}})
    Recorder.act[lane] = lambda argument: time.sleep(0.1)
    number = 20 * options.get("BATCH_SIZE", 1)
    track(*["x"] * number)

    with working() as running:
        wait_until(lambda: running.status is not None or nothing_waits("default"), SOON)
        assert running.end() == 0

    assert len(seen(lane)) == number, "each one once"


@pytest.mark.parametrize("make", [lambda: SystemExit(3), asyncio.CancelledError], ids=["exit", "cancelled"])
@pytest.mark.parametrize("lane", ["recorder", "folder"])
def test_what_ends_a_thread_elsewhere_does_not_end_a_lane(configure, caplog, lane, make):
    configure("outbox", **{lane: {"RETRY_DELAY": 0.1}})
    error = make()

    def act(argument) -> None:
        Recorder.act.clear()
        raise error

    Recorder.act[lane] = act
    track("a")

    with working() as running:
        wait_until(lambda: running.status is not None or seen(lane) == ["a"], SOON)
        assert all(thread.is_alive() for thread in running.worker.threads)
        assert running.end() == 0

    assert "failed without saying why" in caplog.text
    assert account("default", lane) == {"accepted": 1, "delivered": 1}


# --- what is noticed ---


def test_a_hook_that_hangs_is_noticed_soon_however_large_the_batch(configure, caplog, stuck):
    configure("outbox", recorder={"TIMEOUT": 0.3, "BATCH_SIZE": 100})
    Recorder.act["recorder"] = lambda event: stuck.wait(SOON)
    track("a", "b")

    with working() as running, released(stuck):
        begun = time.monotonic()
        assert running.ended() == 70
        assert 0.8 <= time.monotonic() - begun < 6

    assert "the hook of recorder hangs" in caplog.text


def test_a_setup_that_hangs_ends_the_worker(configure, caplog, monkeypatch, stuck):
    configure("outbox", folder={"TIMEOUT": 0.3}, recorder={})
    monkeypatch.setattr(Folder, "setup", lambda self: stuck.wait(SOON))
    track("a")

    with working() as running, released(stuck):
        begun = time.monotonic()
        assert running.ended() == 70
        assert time.monotonic() - begun < 6

    assert "folder hangs" in caplog.text
    assert seen("recorder") == ["a"]


class Died(BaseException):
    pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lane_that_dies_ends_the_worker(configure, caplog, monkeypatch):
    def die(self):
        raise Died

    configure("outbox", folder={})
    monkeypatch.setattr(LaneThread, "_step", die)

    with working() as running:
        assert running.ended() == 70

    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert any("folder" in error and "died" in error for error in errors), errors


# --- how it ends ---


def test_a_worker_that_is_told_to_end_stops_between_events(configure):
    configure("outbox", recorder={"BATCH_SIZE": 100})
    Recorder.act["recorder"] = lambda event: time.sleep(0.1)
    track(*["x"] * 100)

    with working() as running:
        wait_until(lambda: len(seen("recorder")) >= 3, SOON)
        begun = time.monotonic()
        assert running.end() == 0
        assert time.monotonic() - begun < 4
        assert not any(thread.is_alive() for thread in running.worker.threads)

    delivered = len(seen("recorder"))
    assert account("default", "recorder") == {"accepted": 100, "delivered": delivered, "waiting": 100 - delivered}
    Recorder.act.clear()
    drain(host.registry.runners, "default")
    assert len(seen("recorder")) == 100


def test_a_lane_that_does_not_end_in_time_is_not_closed_under_its_hook(configure, monkeypatch, caplog, stuck):
    closed = []
    configure("outbox", recorder={}, folder={})
    monkeypatch.setattr(Recorder, "close", lambda self: closed.append(self.alias))
    Recorder.act["folder"] = lambda batch: stuck.wait(SOON)
    track("a")

    with working(seconds_to_stop=0.3) as running, released(stuck):
        wait_until(lambda: seen("recorder") == ["a"] and host.registry.runners["folder"]._calls, SOON)
        assert running.end() == 70
        assert closed == ["recorder"]

    assert "did not end in time: folder" in caplog.text


# --- how long it rests and drains ---


@pytest.mark.parametrize("asked", [None, 0])
@pytest.mark.parametrize("lane", ["recorder", "folder"])
def test_draining_ends_though_a_lane_always_defers(configure, lane, asked):
    configure("outbox", **{lane: {"RETRY_DELAY": 0.001}}, second={"PLUGIN": "folder"})
    calls = []

    def act(argument) -> None:
        calls.append(True)
        assert len(calls) < 50, "the lane is asked for ever"
        raise RetryableError("slow down", retry_after=asked)

    Recorder.act[lane] = act
    for _ in range(3):
        track(*["x"] * 300)

    drain(host.registry.runners, "default")

    assert len(calls) <= 3
    assert account("default", lane) == {"accepted": 900, "waiting": 900}
    assert account("default", "second") == {"accepted": 900, "delivered": 900}


def test_draining_again_asks_again(configure):
    configure("outbox", folder={})
    Recorder.act["folder"] = raising(lambda: RetryableError("away"))
    track("a")
    drain(host.registry.runners, "default")
    Recorder.act.clear()
    make_due()

    drain(host.registry.runners, "default")

    assert seen("folder") == ["a"]


def test_a_lane_never_rests_for_longer_than_an_hour(configure):
    configure("outbox", folder={})
    thread = LaneThread(host.registry.runners["folder"], "default", threading.Event(), 0)

    assert thread._rest(1.76e9) == 3600
    assert 119 < thread._rest(120) <= 120
    assert max(thread._rest() for _ in range(40)) <= 60


def test_a_process_with_debug_keeps_no_list_of_queries(database, configure, settings):
    configure("outbox", folder={}, recorder={})
    settings.DEBUG = True

    for number in range(15):
        track(f"event {number}")
        drain(host.registry.runners, database)

    assert len(connections[database].queries_log) < 50
    thread = LaneThread(host.registry.runners["folder"], database, threading.Event(), 0)
    thread._step()
    assert len(connections[database].queries_log) == 0
