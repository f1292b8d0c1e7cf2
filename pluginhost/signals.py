"""Signals: what became of events, for sites that want to know.

All are sent after the commit that made it so, by the process that did it. What a
lane tells is sent in a thread of its own (``post``): a receiver that raises is
logged, one that is slow keeps no lane waiting. The sender is None.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
from typing import Any

from django.db import close_old_connections
from django.dispatch import Signal

logger = logging.getLogger("pluginhost.signals")

#: ``lane``, ``n``, ``using``: so many events were delivered.
events_delivered = Signal()
#: ``lane``, ``n``, ``using``: so many events were not for the plugin.
events_skipped = Signal()
#: ``lane``, ``n``, ``reason``, ``retry_in`` (seconds), ``using``: so many events wait for another attempt.
events_deferred = Signal()
#: ``lane``, ``n``, ``message_ids``, ``reason``, ``using``: events became dead letters.
events_dead = Signal()
#: ``lane``, ``n``, ``reason``, ``using``: events were given up by a person, by retention, because the lane was full,
#: or because their person has been forgotten.
events_discarded = Signal()
#: ``lane``, ``limit``, ``using``: a lane has as many events waiting as BACKLOG_LIMIT allows.
backlog_full = Signal()
#: ``lane``, ``trouble``, ``using``: a hook of the lane hung, its thread died, or its receiver asks to wait for days.
lane_troubled = Signal()

#: Signals that may wait for slow receivers; what comes then is dropped.
LIMIT = 1000
#: Seconds that a process which ends gives receivers for what is still to be sent.
SECONDS_TO_FLUSH = 5.0


def announce(signal: Signal, *, lane: str, **details: Any) -> None:
    """Send a signal now, in this thread; nothing is raised."""
    if not signal.has_listeners(None):
        return
    for receiver, answer in signal.send_robust(None, lane=lane, **details):
        if isinstance(answer, Exception):
            logger.error("a receiver of a signal failed: %r", receiver, exc_info=answer)


def post(signal: Signal, *, lane: str, **details: Any) -> None:
    """Send a signal soon, in a thread of its own, and do not wait for its receivers."""
    if signal.has_listeners(None):
        _courier.post(signal, {"lane": lane, **details})


def flush(seconds: float = SECONDS_TO_FLUSH) -> bool:
    """Wait until what was posted in this process has been sent, for so many seconds at most. Returns whether it was."""
    return _courier.flush(seconds)


class _Courier:
    """The thread that sends what was posted, one after the other. It starts at the first."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)
        atexit.register(self.flush, SECONDS_TO_FLUSH)

    def _reset(self) -> None:
        """Begin anew: a child has neither the thread nor what waited for it."""
        self._posted: queue.Queue[tuple[Signal, dict[str, Any]]] = queue.Queue(LIMIT)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._dropping = False

    def post(self, signal: Signal, details: dict[str, Any]) -> None:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="pluginhost-signals", daemon=True)
                thread.start()  # raises where no more threads can be had; the next signal tries again
                self._thread = thread
        try:
            self._posted.put_nowait((signal, details))
        except queue.Full:
            if not self._dropping:
                logger.error("signals are dropped: %d wait for receivers that are too slow", LIMIT)
            self._dropping = True
        else:
            self._dropping = False

    def flush(self, seconds: float) -> bool:
        done = self._posted.all_tasks_done
        with done:
            return done.wait_for(lambda: not self._posted.unfinished_tasks, seconds)

    def _run(self) -> None:
        while True:
            signal, details = self._posted.get()
            try:
                announce(signal, **details)
                close_old_connections()
            except BaseException:  # such as a SystemExit of a receiver: the thread goes on for the others
                logger.exception("a signal could not be sent")
            finally:
                self._posted.task_done()


_courier = _Courier()
