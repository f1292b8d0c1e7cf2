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
from django.db import close_old_connections, connections

from pluginhost.delivery.intake import take
from pluginhost.delivery.settling import sweep_chunks
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
#: The exit status of a worker that a hanging hook ended.
HUNG = 70


class LaneThread(threading.Thread):
    """Delivers one lane's batches, one after the other."""

    def __init__(self, runner: Runner, using: str, stop: threading.Event, number: int) -> None:
        super().__init__(name=f"pluginhost-{runner.alias}-{number}", daemon=True)
        self.runner = runner
        self.using = using
        self.stop = stop
        self.wake = threading.Event()
        self.busy_since: float | None = None
        self.failures = 0

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
        self.busy_since = time.monotonic()
        try:
            outcome = step(self.runner, self.using, self.stop.is_set)
        except DatabaseError as error:
            logger.warning("lane %s: the database refused: %s", self.runner.alias, error)
            connections[self.using].close()
            return False, self._rest()
        except Exception:
            logger.exception("lane %s: a step failed", self.runner.alias)
            return False, self._rest()
        finally:
            self.busy_since = None
            close_old_connections()
        if outcome is None:
            return False, 0.0
        if outcome.deferred is None or outcome.done:
            self.failures = 0
        if outcome.deferred is None:
            return True, 0.0
        return True, self._rest(outcome.deferred.retry_after)

    def _rest(self, asked: float | None = None) -> float:
        """Seconds until the receiver is asked again, whatever else is due: doubled at each failure in a row."""
        self.failures += 1
        doubled = REST_FIRST * 2.0 ** min(self.failures - 1, 20)
        return max(asked or 0.0, random.uniform(0.5, 1.0) * min(doubled, REST_LAST))  # noqa: S311 - jitter

    def hangs(self) -> bool:
        """Whether one call of a hook has taken far longer than it may."""
        since = self.busy_since
        calls = self.runner.batch_size if self.runner.one_by_one else 1
        return since is not None and time.monotonic() - since > self.runner.plugin.timeout * calls + GRACE


class Worker:
    """Empties the outbox on one database, with a set of lanes, until it is told to stop."""

    def __init__(self, runners: Mapping[str, Runner], using: str, lanes: Iterable[str] | None = None) -> None:
        chosen = runners if lanes is None else lanes
        self.runners = {alias: runners[alias] for alias in chosen}
        self.using = using
        self.threads: list[LaneThread] = []
        self._stop = threading.Event()
        self._told_to_end = False

    def end(self) -> None:
        """Tell it to end within a second or so. Safe in a signal handler, where no lock may be taken."""
        self._told_to_end = True

    def run(self, *, seconds_to_stop: float = 30.0) -> int:
        """Work until ``end`` is called. Returns an exit status: 0, or 70 if a hook hangs."""
        for runner in self.runners.values():
            for number in range(runner.plugin.concurrency):
                thread = LaneThread(runner, self.using, self._stop, number)
                thread.start()
                self.threads.append(thread)
        status = self._take_until_told()
        self._stop.set()
        self._join(seconds_to_stop)
        return status

    def _take_until_told(self) -> int:
        pause = POLL_FIRST
        swept = time.monotonic()
        while not self._told_to_end:
            if self._guarded(lambda: take(self.using)):
                pause = POLL_FIRST
                for thread in self.threads:
                    thread.wake.set()
                continue
            if hanging := [thread.runner.alias for thread in self.threads if thread.hangs()]:
                logger.error("the hook of %s hangs; the worker ends, and the lease will lapse", ", ".join(hanging))
                return HUNG
            if time.monotonic() - swept > SWEEP_EVERY:
                self._guarded(lambda: sweep_chunks(self.using))
                swept = time.monotonic()
            time.sleep(pause)
            pause = min(pause * 2, POLL_LAST)
        return 0

    def _guarded(self, act: Callable[[], int]) -> int:
        """Do it, and survive a database that is away or busy."""
        try:
            return act()
        except DatabaseError as error:
            logger.warning("the database refused: %s", error)
            connections[self.using].close()
            return 0
        finally:
            close_old_connections()

    def _join(self, seconds: float) -> None:
        for thread in self.threads:
            thread.wake.set()
        end = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(0.0 if thread.hangs() else max(0.0, end - time.monotonic()))
            if thread.is_alive():
                logger.error("lane %s did not end in time", thread.runner.alias)
        for runner in self.runners.values():
            runner.close()
        connections.close_all()


def drain(runners: Mapping[str, Runner], using: str) -> int:
    """Deliver in this thread until nothing is due any more. Returns how many batches were run."""
    batches = 0
    while True:
        worked = take(using)
        for runner in runners.values():
            while step(runner, using) is not None:
                worked += 1
                batches += 1
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
