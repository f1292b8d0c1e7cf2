"""Metrics for OpenTelemetry, in a process that uses it.

The API of OpenTelemetry is never imported here first: a process that has not
imported it has nowhere to send metrics to, and pays for none. Names follow
OpenTelemetry's conventions for metrics and attributes; units are those of UCUM.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

    from pluginhost.events import Event

logger = logging.getLogger("pluginhost.worker")
P = ParamSpec("P")

API = "opentelemetry.metrics"
#: Seconds for which the backlogs that were counted are good.
BACKLOG_EVERY = 15.0
#: The bounds of the histograms' buckets in seconds: of calls, and of delays.
CALLS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
DELAYS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0)


def _harmless(measure: Callable[P, None]) -> Callable[P, None]:
    """Raise nothing: an event that was delivered, but could not be measured, would be delivered again."""

    @wraps(measure)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            measure(*args, **kwargs)
        except Exception:
            _complain()

    return guarded


class Instruments:
    """What is measured. One object a process."""

    def __init__(self, meter: Meter) -> None:
        self._events = meter.create_counter("pluginhost.events", "{event}", "What became of events in their lanes.")
        self._duration = _histogram(
            meter, "pluginhost.plugin.duration", "How long calls of a plugin's delivery hook take.", CALLS
        )
        self._delay = _histogram(
            meter, "pluginhost.delivery.delay", "From the moment an event happened until it was delivered.", DELAYS
        )
        meter.create_observable_counter(
            "pluginhost.tracked", [_tracked], "{event}", "What became of events at the call, in this process."
        )
        for name, unit, description in (
            ("waiting", "{event}", "Events that wait."),
            ("dead", "{event}", "Events that were given up."),
            ("age", "s", "The age of the oldest event that waits."),
        ):
            meter.create_observable_gauge(f"pluginhost.backlog.{name}", [_observer(name)], unit, description)

    @_harmless
    def settled(self, lane: str, counts: Mapping[str, int]) -> None:
        """So many events of the lane had these outcomes."""
        for outcome, n in counts.items():
            if n:
                self._events.add(n, {"pluginhost.lane": lane, "pluginhost.outcome": outcome})

    @_harmless
    def called(self, lane: str, seconds: float, error: BaseException | None) -> None:
        """A call of the lane's hook has ended."""
        failed = {} if error is None else {"error.type": type(error).__qualname__}
        self._duration.record(seconds, {"pluginhost.lane": lane, **failed})

    @_harmless
    def delivered(self, lane: str, events: Iterable[Event]) -> None:
        """The receiver has taken these events."""
        now = time.time()
        for event in events:
            self._delay.record(max(now - _happened(event), 0.0), {"pluginhost.lane": lane})


_made: Instruments | None = None
_lock = threading.Lock()
_complained = False
"""Whether this process has said that it can't measure: it says so once."""


def instruments() -> Instruments | None:
    """The instruments of this process, as soon as it has imported OpenTelemetry's API; None before. Raises nothing."""
    return _made if _made is not None or sys.modules.get(API) is None else _make()


def _make() -> Instruments | None:
    global _made
    try:
        from opentelemetry import metrics

        from pluginhost import __version__

        with _lock:
            if _made is None:
                _made = Instruments(metrics.get_meter("pluginhost", __version__))
    except Exception:
        _complain()
    return _made


def _complain() -> None:
    global _complained
    if not _complained:
        _complained = True
        logger.exception("OpenTelemetry fails, and what it fails at is not measured; said once")


def _renew_lock() -> None:
    """In a child: the thread that held it at the fork is not there to release it."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def _histogram(meter: Meter, name: str, description: str, bounds: tuple[float, ...]) -> Histogram:
    try:
        return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=bounds)
    except TypeError:  # an API before 1.30 knows no advice
        return meter.create_histogram(name, "s", description)


def _happened(event: Event) -> float:
    """When an event was tracked, in Unix time: its id says so if it is a UUIDv7 (RFC 9562, 5.7)."""
    digits = event.message_id
    if digits[14:15] == "7":
        return int(digits[:8] + digits[9:13], 16) / 1000
    return event.timestamp.timestamp()


def _tracked(_: CallbackOptions) -> Iterable[Observation]:
    from opentelemetry.metrics import Observation

    from pluginhost import counts

    for outcome, n in counts.snapshot().items():
        yield Observation(n, {"pluginhost.outcome": outcome})


# --- the backlogs: counted when they are collected, and only in workers ---

#: Database -> its backlogs. Filled by ``watch_backlogs``.
_backlogs: dict[str, Backlogs] = {}


def watch_backlogs(using: str) -> None:
    """Let this process report what waits on a database. For workers: a web process has better things to count."""
    _backlogs.setdefault(using, Backlogs(using))


class Backlogs:
    """What waits and what is dead on one database, counted at most once every ``BACKLOG_EVERY`` seconds."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._lock = threading.Lock()
        self._counted = float("-inf")
        self._found: dict[str, dict[str, float]] = {}

    def read(self) -> Mapping[str, Mapping[str, float]]:
        """Lane -> ``waiting`` and ``dead`` (events) and ``age`` (seconds). Empty while the database is away."""
        with self._lock:
            if time.monotonic() - self._counted > BACKLOG_EVERY:
                self._found = self._count()
                self._counted = time.monotonic()
            return self._found

    def _count(self) -> dict[str, dict[str, float]]:
        from django.db import Error as DatabaseError
        from django.db import connections
        from django.utils import timezone

        from pluginhost.operations.pausing import overview

        try:
            views = overview(self._using)
        except DatabaseError as error:
            logger.warning("the backlogs on %r could not be counted: %s", self._using, error)
            return {}
        finally:  # whoever collects does so in a thread of its own, once a minute
            if threading.current_thread() is not threading.main_thread():
                connections[self._using].close()
        now = timezone.now()
        return {
            view.lane: {
                "waiting": view.waiting,
                "dead": view.dead,
                "age": max((now - view.oldest_waiting).total_seconds(), 0.0) if view.oldest_waiting else 0.0,
            }
            for view in views
        }


def _observer(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        from opentelemetry.metrics import Observation

        for using, backlogs in list(_backlogs.items()):
            for lane, values in backlogs.read().items():
                yield Observation(values[name], {"pluginhost.lane": lane, "pluginhost.database": using})

    return observe
