"""RATE_LIMIT: how many events a second a lane hands over, with a clock of the test's own or with the real one."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from pluginhost import PermanentError, host
from pluginhost.delivery import pacing
from pluginhost.delivery.intake import take
from pluginhost.delivery.pacing import Pace
from pluginhost.delivery.work import step
from pluginhost.models import Delivery
from pluginhost.workers.worker import Worker, drain
from tests.processes import nothing_waits, wait_until
from tests.samples import Folder, Recorder
from tests.steps import account, given, raising, run, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


def never() -> bool:
    return False


def nothing() -> None:
    pass


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pacing, "time", SimpleNamespace(monotonic=made.monotonic, sleep=made.sleep))
    return made


def handed_over(clock: Clock, alias: str) -> list[tuple[float, int]]:
    """Seconds since now, and how many events, for each call of a sample plugin's hook from now on."""
    calls: list[tuple[float, int]] = []
    begun = clock.now
    Recorder.act[alias] = lambda argument: calls.append((round(clock.now - begun, 3), len(given(argument))))
    return calls


# --- the pace ---


def test_no_limit_is_no_wait(clock):
    pace = Pace(None)
    assert all(pace.wait(500, nothing, never) for _ in range(10))
    assert pace.fit(500) == 500
    assert clock.slept == []


def test_in_no_second_more_than_the_rate(clock):
    pace = Pace(10)
    times = []
    for _ in range(30):
        assert pace.wait(1, nothing, never)
        times.append(clock.now)

    for begin in times:
        assert sum(begin <= each < begin + 0.9999 for each in times) <= 10
    assert times[-1] - times[0] == pytest.approx(2.9)


def test_what_was_not_used_is_not_saved_up(clock):
    pace = Pace(1)
    pace.wait(1, nothing, never)
    clock.now += 1000
    begun = clock.now
    for _ in range(3):
        pace.wait(1, nothing, never)
    assert clock.now - begun == pytest.approx(2)


def test_the_claim_is_kept_while_waiting_and_a_stop_is_noticed_soon(clock):
    pace, kept = Pace(0.01), []
    assert pace.wait(1, nothing, never)

    assert not pace.wait(1, lambda: kept.append(clock.now), lambda: len(kept) == 20)

    assert clock.now - 1000 == pytest.approx(20 * pacing.LOOK_EVERY)
    assert max(clock.slept) <= pacing.LOOK_EVERY


def test_who_stops_waiting_puts_nobody_off(clock):
    """Ten minutes in pieces of ten seconds, as tasks of Celery's work: an event each twenty seconds comes through."""
    pace, handed = Pace(0.05), []
    for _ in range(60):
        end = clock.now + 10
        while pace.wait(1, nothing, lambda end=end: clock.now > end):
            handed.append(round(clock.now - 1000, 1))

    assert handed[:3] == pytest.approx([0, 20, 40], abs=0.2)
    assert len(handed) in (30, 31)


@pytest.mark.parametrize(("rate", "size"), [(0.1, 1), (1, 1), (7.9, 7), (499, 499), (10_000, 500)])
def test_a_batch_is_as_large_as_a_second_allows(rate, size):
    assert Pace(rate).fit(500) == size


def test_threads_share_it():
    """With the real clock: 21 events at 50 a second take 0.4 seconds, however many threads there are."""
    pace = Pace(50)

    def hand_over() -> None:
        for _ in range(7):
            pace.wait(1, nothing, never)

    threads = [threading.Thread(target=hand_over) for _ in range(3)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun >= 0.4


# --- lanes ---


def test_batches_are_cut_to_what_a_second_allows_but_no_further(configure, clock):
    configure("outbox", folder={"RATE_LIMIT": 10})
    calls = handed_over(clock, "folder")
    track(*["x"] * 25)

    drain(host.registry.runners, "default")

    assert calls == [(0, 10), (1, 10), (2, 5)]
    assert account("default", "folder") == {"accepted": 25, "delivered": 25}


def test_single_events_are_spaced(configure, clock):
    configure("outbox", recorder={"RATE_LIMIT": 4})
    calls = handed_over(clock, "recorder")
    track(*["x"] * 6)

    drain(host.registry.runners, "default")

    assert calls == [(0, 1), (0.25, 1), (0.5, 1), (0.75, 1), (1.0, 1), (1.25, 1)]


def test_less_than_one_a_second(configure, clock):
    configure("outbox", folder={"RATE_LIMIT": 0.5})
    calls = handed_over(clock, "folder")
    track("a", "b", "c")

    drain(host.registry.runners, "default")

    assert calls == [(0, 1), (2, 1), (4, 1)]


def test_what_is_handed_over_again_counts_again(configure, clock):
    """The search for a bad event by halving hands the others over once more."""
    configure("outbox", folder={"RATE_LIMIT": 4})
    begun, handed = clock.now, []

    def act(batch) -> None:
        handed.append((clock.now - begun, len(batch)))
        raising(lambda: PermanentError("400"), "bad")(batch)

    Recorder.act["folder"] = act
    track("a", "b", "bad", "c")
    drain(host.registry.runners, "default")

    assert handed == [(0, 4), (1, 2), (1.5, 2), (2, 1), (2.25, 1)]
    assert account("default", "folder") == {"accepted": 4, "delivered": 3, "dead": 1}


def test_what_is_skipped_takes_no_time(configure, clock, monkeypatch):
    configure("outbox", folder={"RATE_LIMIT": 10})
    monkeypatch.setattr(Recorder, "wants", lambda self, event: event.name == "wanted")
    track(*["other"] * 100, "wanted")

    drain(host.registry.runners, "default")

    assert clock.slept == []
    assert account("default", "folder") == {"accepted": 101, "delivered": 1, "skipped": 100}


@pytest.mark.parametrize("lane", ["recorder", "folder"])
def test_a_worker_that_stops_gives_back_what_still_waits_for_its_turn(database, configure, clock, lane):
    configure("outbox", **{lane: {"RATE_LIMIT": 2, "BATCH_SIZE": 100}})
    track(*["x"] * 10)
    take(database)

    step(host.registry.runners[lane], database, lambda: clock.now > 1001.2)

    delivered = len(seen(lane))
    assert 2 <= delivered <= 4
    rest = Delivery.objects.get()
    assert (rest.n - rest.done, rest.token, rest.state) == (10 - delivered, None, "waiting")
    assert rest.attempts == 0
    assert account(database, lane) == {"accepted": 10, "delivered": delivered, "waiting": 10 - delivered}


def test_the_transport_inline_makes_no_visitor_wait(configure, clock):
    configure("inline", folder={"RATE_LIMIT": 0.01})
    for _ in range(3):
        host.track(None, "x")
    assert seen("folder") == ["x"] * 3
    assert clock.slept == []


# --- with the real clock ---


def test_the_lease_is_kept_while_a_lane_waits(database, configure, caplog):
    """Two and a half seconds of waiting, with a lease of two: nobody else may claim what is held."""
    configure("outbox", folder={"RATE_LIMIT": 0.4, "TIMEOUT": 0.1})
    track("a", "b")
    take(database)
    runner = host.registry.runners["folder"]
    others: list[object] = []
    Recorder.act["folder"] = lambda batch: others.append(step(runner, database))

    step(runner, database)

    assert others == [None, None]
    assert seen("folder") == ["a", "b"]
    assert caplog.text == ""
    assert account(database, "folder") == {"accepted": 2, "delivered": 2}


def test_a_worker_ends_soon_though_a_lane_waits_for_its_turn(configure):
    configure("outbox", slow={"PLUGIN": "folder", "RATE_LIMIT": 0.001}, folder={})
    track("a", "b")
    worker = Worker(host.registry.runners, "default")
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(lambda: seen("slow") == ["a"] and seen("folder") == ["a", "b"], 15)
        begun = time.monotonic()
    finally:
        worker.end()
        thread.join(15)
    assert not thread.is_alive()
    assert time.monotonic() - begun < 5
    assert not nothing_waits("default")
    run("default", "folder")
    assert sorted(Folder.batches) == [1, 2]
