"""The process that empties the outbox: one thread takes envelopes, each lane has threads of its own.

No lane waits for another. Nothing relies on the state of a database session, and
a worker may be killed at any moment: what it had claimed lapses and is claimed
by the next one.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError
from django.db import close_old_connections, connections, reset_queries

from pluginhost.delivery.intake import take
from pluginhost.delivery.settling import MAX_RETRY_AFTER, sweep_chunks
from pluginhost.delivery.work import step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pluginhost.delivery.runner import Runner

logger = logging.getLogger("pluginhost.worker")

#: Seconds between two looks at an empty outbox: at first, and at most.
POLL_FIRST, POLL_LAST = 0.05, 1.0
#: Seconds that a lane rests after a receiver's first failure, and at most.
REST_FIRST, REST_LAST = 0.5, 60.0
#: Seconds between two searches for chunks that a killed worker left behind.
SWEEP_EVERY = 3600.0
#: Seconds beyond its time-out after which a hook is taken to hang.
GRACE = 5.0
#: Seconds that all plugins together have to close.
SECONDS_TO_CLOSE = 10.0
#: The exit status of a worker that only a new process can mend.
UNHEALTHY = 70


class Trouble:
    """Logs that the database refuses once, and that it works again, however long it lasts."""

    def __init__(self, who: str) -> None:
        self.who = who
        self.lasting = False

    def begins(self, error: DatabaseError) -> None:
        if not self.lasting:
            logger.warning("%s: the database refuses; tried again until it does not: %s", self.who, error)
        self.lasting = True

    def ends(self) -> None:
        if self.lasting:
            logger.warning("%s: the database works again", self.who)
        self.lasting = False


class LaneThread(threading.Thread):
    """Delivers one lane's batches, one after the other."""

    def __init__(self, runner: Runner, using: str, stop: threading.Event, number: int) -> None:
        super().__init__(name=f"pluginhost-{runner.alias}-{number}", daemon=True)
        self.runner = runner
        self.using = using
        self.stop = stop
        self.wake = threading.Event()
        self.failures = 0
        self.trouble = Trouble(f"lane {runner.alias}")

    def run(self) -> None:
        pause = POLL_FIRST
        try:
            while not self.stop.is_set():
                worked, rest = self._step()
                pause = POLL_FIRST if worked else min(pause * 2, POLL_LAST)
                if rest:
                    self.stop.wait(rest)
                elif not worked:
                    self.wake.wait(pause)
                    self.wake.clear()
        finally:
            connections.close_all()

    def _step(self) -> tuple[bool, float]:
        """One step: whether there was anything to do, and how long to rest."""
        try:
            outcome = step(self.runner, self.using, self.stop.is_set)
        except DatabaseError as error:
            self.trouble.begins(error)
            connections[self.using].close()
            return False, self._rest()
        except Exception as error:
            logger.error("lane %s: a step failed:\n%s", self.runner.alias, self.runner.judge.trace(error))
            return False, self._rest()
        finally:
            _tidy_up()
        self.trouble.ends()
        if outcome is None:
            return False, 0.0
        if outcome.deferred is None or outcome.done:
            self.failures = 0
        return True, 0.0 if outcome.deferred is None else self._rest(outcome.deferred.retry_after)

    def _rest(self, asked: float | None = None) -> float:
        """Seconds until the receiver is asked again, whatever else is due: doubled at each failure in a row."""
        self.failures += 1
        doubled = REST_FIRST * 2.0 ** min(self.failures - 1, 20)
        own = random.uniform(0.5, 1.0) * min(doubled, REST_LAST)  # noqa: S311 - jitter
        return max(min(asked or 0.0, MAX_RETRY_AFTER), own)

    def hangs(self) -> bool:
        """Whether its call of the plugin has taken far longer than it may."""
        return self.runner.calling_for(self.ident) > self.runner.plugin.timeout + GRACE


class Worker:
    """Empties the outbox on one database, with a set of lanes, until it is told to stop."""

    def __init__(self, runners: Mapping[str, Runner], using: str, lanes: Iterable[str] | None = None) -> None:
        chosen = runners if lanes is None else lanes
        self.runners = {alias: runners[alias] for alias in chosen}
        self.using = using
        self.threads: list[LaneThread] = []
        self._trouble = Trouble("intake")
        self._stop = threading.Event()
        self._told_to_end = False

    def end(self) -> None:
        """Tell it to end within a second or so. Safe in a signal handler, where no lock may be taken."""
        self._told_to_end = True

    def run(self, *, seconds_to_stop: float = 30.0) -> int:
        """Work until ``end`` is called. Returns an exit status: 0, or 70 if a lane hangs, dies or does not end."""
        for runner in self.runners.values():
            for number in range(runner.plugin.concurrency):
                thread = LaneThread(runner, self.using, self._stop, number)
                thread.start()
                self.threads.append(thread)
        status = self._take_until_told()
        self._stop.set()
        return max(status, self._join(seconds_to_stop))

    def _take_until_told(self) -> int:
        pause = POLL_FIRST
        swept = time.monotonic()
        while not self._told_to_end:
            if self._guarded(lambda: take(self.using)):
                pause = POLL_FIRST
                for thread in self.threads:
                    thread.wake.set()
            else:
                time.sleep(pause)
                pause = min(pause * 2, POLL_LAST)
            if self._something_is_wrong():
                return UNHEALTHY
            if time.monotonic() - swept > SWEEP_EVERY:
                self._guarded(lambda: sweep_chunks(self.using))
                swept = time.monotonic()
        return 0

    def _something_is_wrong(self) -> bool:
        """Whether a lane hangs or has died. Only a new process mends that, and the leases will lapse."""
        for thread in self.threads:
            if thread.hangs():
                logger.error("the hook of %s hangs; the worker ends", thread.runner.alias)
                return True
            if not thread.is_alive():
                logger.error("lane %s has died; the worker ends", thread.runner.alias)
                return True
        return False

    def _guarded(self, act: Callable[[], int]) -> int:
        """Do it, and survive a database that is away or busy."""
        try:
            done = act()
        except DatabaseError as error:
            self._trouble.begins(error)
            connections[self.using].close()
            return 0
        finally:
            _tidy_up()
        self._trouble.ends()
        return done

    def _join(self, seconds: float) -> int:
        """Wait for the lanes to end, and close their plugins. Returns 70 if one does not end."""
        for thread in self.threads:
            thread.wake.set()
        end = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(0.0 if thread.hangs() else max(0.0, end - time.monotonic()))
        unfinished = {thread.runner.alias for thread in self.threads if thread.is_alive()}
        if unfinished:
            logger.error("lanes that did not end in time: %s", ", ".join(sorted(unfinished)))
        close_all([runner for alias, runner in self.runners.items() if alias not in unfinished])
        connections.close_all()
        return UNHEALTHY if unfinished else 0


def close_all(runners: Iterable[Runner]) -> None:
    """Let plugins close what they opened; one that hangs at it is left behind."""

    def close() -> None:
        for runner in runners:
            runner.close()

    thread = threading.Thread(target=close, name="pluginhost-close", daemon=True)
    thread.start()
    thread.join(SECONDS_TO_CLOSE)


def _tidy_up() -> None:
    """Between two batches: no connection outlives its age, and a DEBUG process keeps no list of queries."""
    close_old_connections()
    reset_queries()


class DrainWatch(threading.Thread):
    """Ends the process if the hook hangs that another thread calls: nothing else ends such a call."""

    def __init__(self, runners: Iterable[Runner], watched: int) -> None:
        super().__init__(name="pluginhost-watch", daemon=True)
        self.runners = list(runners)
        self.watched = watched
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(POLL_LAST):
            for runner in self.runners:
                if runner.calling_for(self.watched) > runner.plugin.timeout + GRACE:
                    logger.error("the hook of %s hangs; the worker ends", runner.alias)
                    logging.shutdown()
                    os._exit(UNHEALTHY)


def drain(runners: Mapping[str, Runner], using: str) -> int:
    """Deliver in this thread until nothing is due any more. Returns how many batches were run.

    A lane whose receiver is away is not asked again.
    """
    batches = 0
    open_lanes = dict(runners)
    while True:
        worked = take(using)
        for alias, runner in list(open_lanes.items()):
            while (outcome := step(runner, using)) is not None:
                worked += 1
                batches += 1
                reset_queries()
                if outcome.deferred:
                    del open_lanes[alias]
                    break
        if not worked:
            return batches


_thread: tuple[int, threading.Thread] | None = None
_thread_lock = threading.Lock()


def ensure_thread(using: str) -> None:
    """Start a worker thread in this process, once; again after a fork. For development only."""
    global _thread
    with _thread_lock:
        if _thread is not None and _thread[0] == os.getpid() and _thread[1].is_alive():
            return
        from pluginhost.registry import get_registry

        worker = Worker(get_registry().runners, using)
        thread = threading.Thread(target=worker.run, name="pluginhost-worker", daemon=True)
        thread.start()
        _thread = os.getpid(), thread
