"""What a worker watches: calls that hang, lanes that die or do not end, and how long it rests and drains."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager

import pytest
from django.db import OperationalError, connections
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from pluginhost import RetryableError, host, signals
from pluginhost.delivery import troubles
from pluginhost.delivery.intake import take
from pluginhost.delivery.work import step
from pluginhost.models import Lane
from pluginhost.operations import pausing
from pluginhost.workers import lane_thread as module
from pluginhost.workers.worker import LaneThread, Worker, drain
from tests.processes import nothing_waits, wait_until
from tests.samples import Folder, Recorder
from tests.steps import account, given, make_due, raising, run, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)
#: Seconds that everything here may take.
SOON = 15


class Working:
    """A worker in a thread of this process."""

    def __init__(self, seconds_to_stop: float, database: str) -> None:
        self.worker = Worker(host.registry.runners, database)
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
def working(seconds_to_stop: float = 5.0, database: str = "default"):
    running = Working(seconds_to_stop, database)
    try:
        yield running
    finally:
        running.end()
        for thread in running.worker.threads:
            thread.join(SOON)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A worker that looks more often, sooner takes a call to hang, and has told nothing yet."""
    troubles.reset()
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


def test_a_hook_that_hangs_marks_its_lane_and_lets_the_others_finish(database, configure, caplog, stuck):
    """The lane is marked, its lease lapses, the others finish their batches, and the next worker has it all."""
    configure("outbox", recorder={"TIMEOUT": 1}, folder={}, other={"PLUGIN": "folder", "TIMEOUT": 60})
    ids, going_on = [], threading.Event()

    def hang(event) -> None:
        ids.append(event.message_id)
        stuck.wait(SOON)

    def finish_late(batch) -> None:
        going_on.set()
        wait_until(lambda: "hangs" in caplog.text, SOON)
        time.sleep(0.3)

    Recorder.act["recorder"], Recorder.act["other"] = hang, finish_late
    track("a", "b")
    told: list[dict] = []

    def receiver(**details) -> None:
        told.append(details)

    signals.lane_troubled.connect(receiver)
    try:
        with working(database=database) as running, released(stuck):
            assert going_on.wait(SOON)
            assert running.ended() == 70
            assert seen("folder") == seen("other") == ["a", "b"]
            row = Lane.objects.get()
    finally:
        signals.lane_troubled.disconnect(receiver)

    said = f"no answer after 2 s; in hand: {ids[0]}"
    assert f"the hook of recorder hangs; the worker ends: {said}\n" in caplog.text
    assert (row.name, row.trouble) == ("recorder", f"the hook hung: {said}")
    assert row.trouble_at is not None
    assert [(each["lane"], each["trouble"], each["using"]) for each in told] == [("recorder", row.trouble, database)]
    for lane in ("folder", "other"):
        assert account(database, lane) == {"accepted": 2, "delivered": 2}
    # The thread that hung came back, but only its worker's end ended the claim: as after a kill.
    Recorder.act.clear()
    troubles.reset()
    drain(host.registry.runners, database)
    make_due()
    drain(host.registry.runners, database)
    assert account(database, "recorder") == {"accepted": 2, "delivered": 2}
    assert not Lane.objects.exists(), "the lane works again"


def test_of_a_large_batch_some_are_named(configure, caplog, stuck):
    configure("outbox", folder={"TIMEOUT": 0.3})
    batches = []

    def hang(batch) -> None:
        batches.append([event.message_id for event in batch])
        stuck.wait(SOON)

    Recorder.act["folder"] = hang
    track(*["x"] * 25)
    with working() as running, released(stuck):
        assert running.ended() == 70
    [ids] = batches
    assert f"in hand: {', '.join(ids[:10])} and 15 more" in caplog.text


def test_a_database_that_refuses_the_mark_does_not_keep_the_worker(configure, caplog, monkeypatch, stuck):
    def refuse(*arguments, **options):
        stuck.wait(SOON)

    monkeypatch.setattr(troubles, "SECONDS_TO_MARK", 0.2)
    monkeypatch.setattr(troubles, "mark", refuse)
    configure("outbox", folder={"TIMEOUT": 0.3})
    Recorder.act["folder"] = lambda batch: stuck.wait(SOON)
    track("a")
    with working() as running, released(stuck):
        assert running.ended() == 70
        assert not stuck.is_set()


def test_a_hook_that_hangs_with_the_lock_of_a_log_handler_ends_the_worker(configure, caplog, monkeypatch, stuck):
    def hang(batch):
        with caplog.handler.lock:
            stuck.wait(SOON)

    monkeypatch.setattr(module, "SECONDS_TO_SAY", 0.2)
    configure("outbox", folder={"TIMEOUT": 0.3})
    Recorder.act["folder"] = hang
    track("a")
    with working() as running, released(stuck):
        assert running.ended() == 70
        assert not stuck.is_set()


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
    assert "its thread died" in Lane.objects.get(name="folder").trouble


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


# --- a worker that others took for dead ---


@pytest.mark.parametrize("lane", ["recorder", "folder"])
def test_a_lease_that_lapses_while_the_hook_runs(database, configure, caplog, lane):
    """Whoever had it first finishes nothing and says so once; where ids are recognised, the effect is one."""
    configure("outbox", **{lane: {}})
    effects: set[str] = set()
    calls = []

    def take_over() -> None:
        try:
            step(runner, database)
        finally:
            connections.close_all()

    def overtaken(argument) -> None:
        """While the first call runs, its lease lapses and another worker delivers everything."""
        calls.append(True)
        if len(calls) == 1:
            make_due()
            other = threading.Thread(target=take_over)
            other.start()
            other.join(SOON)
        effects.update(event.message_id for event in given(argument))  # the receiver recognises what it has seen

    Recorder.act[lane] = overtaken
    track("a", "b")
    take(database)
    runner = host.registry.runners[lane]
    step(runner, database)

    assert sorted(seen(lane)) == ["a", "a", "b", "b"]
    assert len(effects) == 2
    assert account(database, lane) == {"accepted": 2, "delivered": 2}
    assert [record.getMessage() for record in caplog.records] == [
        f"plugin {lane}: the lease ran out, and others have taken over"
    ]


# --- troubles ---


def test_a_trouble_is_cleared_once_and_not_asked_for_at_each_batch(database, configure):
    configure("outbox", folder={})
    Lane.objects.create(name="folder", trouble="the hook hung", trouble_at=Now())
    Lane.objects.create(name="other", trouble="the hook hung", trouble_at=Now())
    track("a")
    drain(host.registry.runners, database)
    assert list(Lane.objects.values_list("name", flat=True)) == ["other"]

    track("b")
    take(database)
    with CaptureQueriesContext(connections[database]) as queries:
        run(database, "folder")
    assert not [query for query in queries if "trouble" in query["sql"]]


def test_a_lane_that_is_paused_keeps_its_pause(database, configure):
    configure("outbox", folder={})
    Lane.objects.create(name="folder", trouble="the hook hung", trouble_at=Now(), paused_because="why not")
    troubles.works("folder", database)
    assert not Lane.objects.exists()

    pausing.pause("folder", database, "a quota")
    troubles.mark("folder", database, "the hook hung")
    troubles.reset()
    troubles.works("folder", database)
    row = Lane.objects.get()
    assert (row.paused_because, row.trouble, row.trouble_at) == ("a quota", "", None)
    assert row.paused_at is not None


def test_the_trouble_of_a_lane_is_its_last_one(database, configure):
    pausing.pause("folder", database, "a quota")
    for trouble in ("first", "second"):
        troubles.mark("folder", database, trouble)
    row = Lane.objects.get()
    assert (row.trouble, row.paused_because) == ("second", "a quota")


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


def test_a_lane_never_rests_for_longer_than_an_hour():
    def seconds(asked: float | None = None) -> float:
        rest.begin(asked)
        return rest.seconds

    rest = module.Rest()
    assert 3590 < seconds(1.76e9) <= 3600
    assert 100 < seconds(120) <= 120
    assert max(seconds() for _ in range(40)) <= 60


def test_a_database_that_is_away_is_no_failure_of_the_receiver(configure, monkeypatch):
    configure("outbox", folder={})
    thread = LaneThread(host.registry.runners["folder"], "default", threading.Event(), 0)

    def refuse(*args):
        raise OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(module, "step", refuse)
        for _ in range(10):
            assert not thread._step()
            assert thread.rest.seconds == 0
    track("a")
    take("default")
    assert thread._step()
    assert seen("folder") == ["a"]


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
