"""A circuit breaker: while the broker is away, requests do not wait for it, but for one now and then that looks."""

from __future__ import annotations

import logging
import time
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("pluginhost.broker")

#: Seconds until the broker is asked again: at first, doubled at each failure, and at most.
PAUSE_FIRST, PAUSE_LAST = 1.0, 30.0


class Breaker:
    """Closed while the broker works. A failure opens it; then one request probes after each pause.

    Who may ask the broker holds a ticket and hands it back with what came of it.
    Safe in threads.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._openings = 0
        self._pause = 0.0
        """Of now; 0 while it is closed."""
        self._probe_at = 0.0
        self._probing = False
        self._spilled = 0

    @property
    def is_open(self) -> bool:
        """Whether whoever asks now would be refused."""
        with self._lock:
            return self._refuses()

    def enter(self) -> int | None:
        """A ticket to ask the broker, or None: spare yourself the wait."""
        with self._lock:
            if self._refuses():
                return None
            self._probing = self._pause > 0
            return self._openings

    def _refuses(self) -> bool:
        return self._pause > 0 and (self._probing or self._clock() < self._probe_at)

    def succeeded(self, ticket: int) -> None:
        """The broker took it. That of a request from before the outage says nothing."""
        with self._lock:
            if ticket != self._openings or not self._pause:
                return
            spilled, self._spilled = self._spilled, 0
            self._pause = 0.0
            self._probing = False
        logger.warning("the broker takes events again; %d went to the outbox meanwhile", spilled)

    def failed(self, ticket: int, reason: str) -> None:
        """The broker did not take it. Several requests that notice the same outage are one."""
        with self._lock:
            if ticket != self._openings:
                return
            opens = not self._pause
            self._openings += opens
            self._pause = PAUSE_FIRST if opens else min(self._pause * 2, PAUSE_LAST)
            self._probe_at = self._clock() + self._pause
            self._probing = False
        if opens:
            logger.warning("the broker does not take events, which go to the outbox until it does: %s", reason)

    def spilled(self, n: int) -> None:
        """So many events went to the outbox instead; told when it closes."""
        with self._lock:
            self._spilled += n
