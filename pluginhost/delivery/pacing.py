"""RATE_LIMIT: how soon a lane may hand over the next events."""

from __future__ import annotations

import time
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two looks at whether the worker is to stop.
LOOK_EVERY = 0.05


class Pace:
    """Spaces the events of one alias in one process; all threads of its lane share it.

    A leaky bucket: n events take n/rate seconds of the time line, and the next ones
    come after them. What was not used is not saved up, so that a receiver never gets
    more than the rate in any second, a batch that is larger than that aside.
    """

    def __init__(self, rate: float | None) -> None:
        """``rate`` in events a second; None is no limit."""
        self.rate = rate
        self._lock = Lock()
        self._next = 0.0

    def fit(self, batch_size: int) -> int:
        """A batch that is not handed over faster than the rate: no more events than those of a second."""
        return batch_size if self.rate is None else min(batch_size, max(1, int(self.rate)))

    def wait(self, n: int, keep: Callable[[], None], stopping: Callable[[], bool]) -> bool:
        """Wait until n more events may be handed over. Returns False, soon, if the worker is to stop.

        ``keep`` is called again and again meanwhile, to keep the claim on them. Who
        stops has used nothing of the time line: a task of Celery's ends after ten
        seconds, and one event may take longer.
        """
        if self.rate is None:
            return True
        waited = False
        while (rest := self._take(n, self.rate, on_time=waited)) > 0:
            if stopping():
                return False
            keep()
            time.sleep(min(rest, LOOK_EVERY))
            waited = True
        return True

    def _take(self, n: int, rate: float, *, on_time: bool) -> float:
        """Seconds until it is the turn of n events; 0 if it is now, and then their time is taken.

        ``on_time`` says that somebody has waited for this moment: to oversleep costs nothing.
        """
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                return self._next - now
            self._next = (self._next if on_time else now) + n / rate
            return 0.0
