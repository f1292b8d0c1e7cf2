"""The file that a worker touches while it is well, for supervisors; and the hourly housekeeping."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError
from django.db import connections

from pluginhost.operations.retention import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = logging.getLogger("pluginhost.worker")

#: Seconds between two touches of the file, at least.
BEAT_EVERY = 2.0
#: Seconds between two cleanings, on average.
CLEAN_EVERY = 3600.0


class Heartbeat:
    """Touches a file: the worker's intake goes round, and no lane of it hangs.

    A database that is away stops no beat: to start the worker again would not bring
    it back. One that holds an answer back does: a new worker has a new connection.
    """

    def __init__(self, path: str | Path, lanes: Iterable[str]) -> None:
        self._path = Path(path)
        self._lanes = sorted(lanes)
        self._last = float("-inf")
        self._failed = False

    def begin(self) -> None:
        """Write the file for the first time. Raises ``OSError`` where that is impossible."""
        self._write()

    def beat(self) -> None:
        """Write it again if the last time is long enough ago. What fails is logged, and the file grows old."""
        if time.monotonic() - self._last < BEAT_EVERY:
            return
        try:
            self._write()
        except OSError as error:
            if not self._failed:
                logger.error("the file of the health check can't be written: %s", error)
            self._failed = True
        else:
            self._failed = False

    def end(self) -> None:
        """Remove the file, unless it is that of a worker that has taken this one's place."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if json.loads(self._path.read_text())["pid"] == os.getpid():
                self._path.unlink()

    def _write(self) -> None:
        """In one step: nobody ever reads half of it."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            fresh.write_text(json.dumps({"time": now, "pid": os.getpid(), "lanes": self._lanes}) + "\n")
            fresh.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        self._last = time.monotonic()


class Housekeeper(threading.Thread):
    """Throws away once an hour what is too old. Beside the intake and the lanes, which it does not hold up."""

    def __init__(self, using: str, stop: threading.Event) -> None:
        super().__init__(name="pluginhost-housekeeper", daemon=True)
        self.using = using
        self.stop = stop

    def run(self) -> None:
        # At random, so that workers that were started together do not all do it at once.
        wait = random.uniform(0.1, 1.0) * CLEAN_EVERY  # noqa: S311 - jitter
        while not self.stop.wait(wait):
            self.clean()
            wait = random.uniform(0.9, 1.1) * CLEAN_EVERY  # noqa: S311 - jitter

    def clean(self) -> None:
        """Clean once. What fails is logged: the next hour, or the next worker, does it."""
        try:
            cleaned = clean(self.using)
        except DatabaseError as error:
            logger.warning("housekeeping: the database refuses: %s", error)
        except Exception:
            logger.exception("housekeeping failed")
        else:
            if any(cleaned.values()):
                logger.info("housekeeping: %s", ", ".join(f"{name} {n}" for name, n in cleaned.items() if n))
        finally:
            connections[self.using].close()
