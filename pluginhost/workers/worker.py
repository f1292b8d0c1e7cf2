"""The process that empties the outbox: one thread takes envelopes, each lane has threads of its own.

No lane waits for another. Nothing relies on the state of a database session, and
a worker may be killed at any moment: what it had claimed lapses and is claimed
by the next one.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError
from django.db import connections

from pluginhost import signals
from pluginhost.delivery import troubles
from pluginhost.delivery.intake import most, take
from pluginhost.workers import lane_thread
from pluginhost.workers.draining import UNHEALTHY, DrainWatch, drain
from pluginhost.workers.health import Housekeeper
from pluginhost.workers.lane_thread import POLL_FIRST, REST_FIRST, REST_LAST, LaneThread, Trouble, say_last, tidy_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pluginhost.delivery.runner import Runner
    from pluginhost.workers.health import Heartbeat

__all__ = [
    "REST_FIRST",
    "REST_LAST",
    "UNHEALTHY",
    "DrainWatch",
    "LaneThread",
    "Trouble",
    "Worker",
    "be_a_worker",
    "close_all",
    "drain",
    "ensure_thread",
]

logger = logging.getLogger("pluginhost.worker")

#: Seconds that all plugins together have to close.
SECONDS_TO_CLOSE = 10.0
#: Seconds that a thread may go on while others want to. Python's own is 5 ms.
SWITCH_INTERVAL = 0.001


class Worker:
    """Empties the outbox on one database, with a set of lanes, until it is told to stop."""

    def __init__(
        self,
        runners: Mapping[str, Runner],
        using: str,
        lanes: Iterable[str] | None = None,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        chosen = runners if lanes is None else lanes
        self.runners = {alias: runners[alias] for alias in chosen}
        self.using = using
        self.threads: list[LaneThread] = []
        self._heartbeat = heartbeat
        self._trouble = Trouble("intake")
        self._stop = threading.Event()
        self._told_to_end = False
        self._marked: set[str] = set()

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
        Housekeeper(self.using, self._stop).start()
        status = self._take_until_told()
        self._stop.set()
        status = max(status, self._join(seconds_to_stop))
        signals.flush()
        if self._heartbeat is not None and not status:
            self._heartbeat.end()
        return status

    def _take_until_told(self) -> int:
        pause = POLL_FIRST
        while not self._told_to_end:
            taken = self._guarded(lambda: take(self.using))
            if taken:
                pause = POLL_FIRST
                for thread in self.threads:
                    thread.wake.set()
            if taken < most(self.using):
                time.sleep(pause)  # what comes next gathers meanwhile: a batch costs much the same whatever its size
            if not taken:
                pause = min(pause * 2, lane_thread.POLL_LAST)
            if self._something_is_wrong():
                return UNHEALTHY
            if self._heartbeat is not None:
                self._heartbeat.beat()
        return 0

    def _something_is_wrong(self) -> bool:
        """Whether a lane hangs or has died. Only a new process mends that, and the leases will lapse."""
        wrong = False
        for thread in self.threads:
            if thread.hangs():
                self._mark_hang(thread)
                wrong = True
            elif not thread.is_alive():
                self._mark_death(thread.runner.alias)
                wrong = True
        return wrong

    def _mark_death(self, alias: str) -> None:
        """Once a lane, however many threads it had: a database that is away is waited for at each mark."""
        if alias in self._marked:
            return
        self._marked.add(alias)
        say_last(lambda: logger.error("lane %s has died; the worker ends", alias))
        troubles.mark_soon(
            alias, self.using, "its thread died; the standard error output of the worker has the traceback"
        )

    def _mark_hang(self, thread: LaneThread) -> None:
        alias = thread.runner.alias
        if alias in self._marked:
            return
        self._marked.add(alias)
        said = lane_thread.hang(thread.runner, thread.ident)
        say_last(lambda: logger.error("the hook of %s hangs; the worker ends: %s", alias, said))
        troubles.mark_soon(alias, self.using, f"the hook hung: {said}")

    def _guarded(self, act: Callable[[], int]) -> int:
        """Do it, and survive a database that is away or busy."""
        try:
            done = act()
        except DatabaseError as error:
            self._trouble.begins(error)
            connections[self.using].close()
            return 0
        finally:
            tidy_up()
        self._trouble.ends()
        return done

    def _join(self, seconds: float) -> int:
        """Wait for the lanes to end, and close their plugins. Returns 70 if one does not end."""
        for thread in self.threads:
            thread.wake.set()
        end = time.monotonic() + seconds
        for thread in self.threads:
            while thread.is_alive() and not thread.hangs() and (rest := end - time.monotonic()) > 0:
                thread.join(min(rest, lane_thread.POLL_LAST))
        unfinished = [thread for thread in self.threads if thread.is_alive()]
        for thread in unfinished:
            if thread.hangs():
                self._mark_hang(thread)
        names = {thread.runner.alias for thread in unfinished}
        if names:
            say_last(lambda: logger.error("lanes that did not end in time: %s", ", ".join(sorted(names))))
        close_all([runner for alias, runner in self.runners.items() if alias not in names])
        connections.close_all()
        return UNHEALTHY if names else 0


def be_a_worker() -> None:
    """Make a process good at this: to be called once all is loaded, in a process that does nothing else."""
    # What is there by now stays. The collector would go through it every few batches, which takes a tenth of the time.
    gc.freeze()
    # A thread that holds SQLite's lock soon has its turn again: while it waits, so do requests.
    sys.setswitchinterval(SWITCH_INTERVAL)


def close_all(runners: Iterable[Runner]) -> None:
    """Let plugins close what they opened; one that hangs at it is left behind."""

    def close() -> None:
        for runner in runners:
            runner.close()

    thread = threading.Thread(target=close, name="pluginhost-close", daemon=True)
    thread.start()
    thread.join(SECONDS_TO_CLOSE)


#: Database -> the thread of this process that empties its outbox.
_threads: dict[str, threading.Thread] = {}
_threads_lock = threading.Lock()


def ensure_thread(using: str) -> None:
    """Start a worker thread for a database in this process, once; again after a fork. For development only.

    Its plugins are its own: those of the web process may have been in the hands of
    another thread when this process was forked, and their locks then stay shut.
    """
    with _threads_lock:
        if (thread := _threads.get(using)) is not None and thread.is_alive():
            return
        from pluginhost.conf import get_settings
        from pluginhost.registry import build

        worker = Worker(build(get_settings()).runners, using)
        thread = _threads[using] = threading.Thread(target=worker.run, name="pluginhost-worker", daemon=True)
        thread.start()


def _begin_anew() -> None:
    """In a child no other thread goes on, and what one held is never let go."""
    global _threads_lock
    _threads_lock = threading.Lock()
    _threads.clear()


os.register_at_fork(after_in_child=_begin_anew)
