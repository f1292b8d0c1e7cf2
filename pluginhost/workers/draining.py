"""Empties the outbox once, in the caller's thread, and ends."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from django.db import reset_queries

from pluginhost.delivery import troubles
from pluginhost.delivery.intake import take
from pluginhost.delivery.work import step
from pluginhost.signals import flush
from pluginhost.workers import lane_thread
from pluginhost.workers.lane_thread import say_last

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pluginhost.delivery.runner import Runner

logger = logging.getLogger("pluginhost.worker")

#: The exit status of a worker that only a new process can mend.
UNHEALTHY = 70


class DrainWatch(threading.Thread):
    """Ends the process if the hook hangs that another thread calls: nothing else ends such a call."""

    def __init__(self, runners: Iterable[Runner], watched: int, using: str | None = None) -> None:
        """``using`` is the database in which the lane is then marked; None: in none."""
        super().__init__(name="pluginhost-watch", daemon=True)
        self.runners = list(runners)
        self.watched = watched
        self.using = using
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(lane_thread.POLL_LAST):
            for runner in self.runners:
                if lane_thread.hangs(runner, self.watched):
                    self._end(runner)

    def _end(self, runner: Runner) -> None:
        said = lane_thread.hang(runner, self.watched)
        say_last(lambda: logger.error("the hook of %s hangs; the worker ends: %s", runner.alias, said))
        if self.using is not None:
            troubles.mark_soon(runner.alias, self.using, f"the hook hung: {said}")
        flush()
        say_last(logging.shutdown)
        os._exit(UNHEALTHY)


def drain(runners: Mapping[str, Runner], using: str, stopping: Callable[[], bool] = lambda: False) -> int:
    """Deliver in this thread until nothing is due any more. Returns how many batches were run.

    A lane whose receiver is away is not asked again. ``stopping`` is asked between batches,
    and between single events, to end early.
    """
    batches = 0
    open_lanes = dict(runners)
    while True:
        worked = take(using)
        for alias, runner in list(open_lanes.items()):
            while not stopping() and (outcome := step(runner, using, stopping)) is not None:
                worked += 1
                batches += 1
                reset_queries()
                if outcome.deferred:
                    del open_lanes[alias]
                    break
        if not worked or stopping():
            return batches
