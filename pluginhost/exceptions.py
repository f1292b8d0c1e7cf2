"""Two families that never meet.

Configuration errors are Django's ``ImproperlyConfigured``: they stop a process
at its start. Delivery errors are what a plugin raises to say what should become
of an event; the lanes catch them, and no view ever sees one.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import sys
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Mapping


class ConfigurationError(ImproperlyConfigured):
    """The setting ``PLUGINHOST`` or a plugin named in it is wrong.

    ``id`` is the id of the system check that reports the same thing, ``hint``
    says what would be right.
    """

    def __init__(self, message: str, *, id: str, hint: str = "") -> None:  # noqa: A002 - Django's own word
        super().__init__(f"{message} {hint}".rstrip())
        self.message = message
        self.id = id
        self.hint = hint


class InvalidEvent(ValueError):
    """The arguments do not make an event. ``path`` names the bad value (``properties.items[2].price``)."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem

    def within(self, path: str) -> InvalidEvent:
        """The same, of a value that lies within what ``path`` names."""
        return InvalidEvent(f"{path}{self.path}", self.problem)


class AsyncContextError(RuntimeError):
    """A synchronous call that would have to touch the database was made in an event loop."""


class DeliveryError(Exception):
    """Base of what a plugin raises to say what becomes of an event."""


class RetryableError(DeliveryError):
    """Not now, perhaps later: the batch stays and is tried again with a growing delay.

    ``retry_after`` is what the receiver asked for: seconds, a timedelta, or the text of
    the header Retry-After in either form (RFC 9110, 10.2.3: seconds or a date, which
    becomes seconds from now by this machine's clock). ``self.retry_after`` has it in
    seconds, never negative; None for what is no time. Such a wait does not count as an
    attempt.
    """

    def __init__(self, reason: str = "", *, retry_after: float | str | dt.timedelta | None = None) -> None:
        super().__init__(reason)
        self.retry_after = _seconds(retry_after)


class PermanentError(DeliveryError):
    """Never: the event becomes a dead letter at once, with this reason.

    Raised for a batch of several, it makes the host look for the bad ones by
    halving the batch.
    """


class UncertainError(DeliveryError):
    """Sent, but the answer never came. The option ``ON_UNCERTAIN`` of the alias decides."""


class SkipEvent(DeliveryError):
    """Not for this plugin. Counted as skipped, with this reason in the log."""


class PartialFailure(DeliveryError):
    """Some events of a batch failed: ``{message_id: error}``. The others are delivered.

    Raises ``TypeError`` if an error is no exception.
    """

    def __init__(self, errors: Mapping[str, Exception]) -> None:
        super().__init__(f"{len(errors)} events failed")
        self.errors = {str(message_id): error for message_id, error in errors.items()}
        for error in self.errors.values():
            if not isinstance(error, Exception):
                raise TypeError(f"PartialFailure takes {{message_id: exception}}, not a {type(error).__name__}")


_DELAY_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?")


def _seconds(value: float | str | dt.timedelta | None) -> float | None:
    """A time to wait in seconds, or None if it is none: it comes from a receiver's header."""
    if isinstance(value, str):
        text = value.strip()
        return min(float(text), sys.float_info.max) if _DELAY_SECONDS.fullmatch(text) else _until(text)
    if isinstance(value, dt.timedelta):
        value = value.total_seconds()
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _until(text: str) -> float | None:
    """Seconds until an HTTP-date (RFC 9110, 5.6.7), in any of its three formats; None if it is none."""
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # asctime names no zone: all dates of HTTP are UTC
            moment = moment.replace(tzinfo=dt.UTC)
        return max((moment - dt.datetime.now(dt.UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
