"""What an exception means for the events that it speaks of: tried again, or dead; and what may be said of it."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, NamedTuple

from pluginhost.exceptions import DeliveryError, PermanentError, RetryableError, UncertainError
from pluginhost.options import redacted

if TYPE_CHECKING:
    from pluginhost.plugin import Plugin

logger = logging.getLogger("pluginhost.delivery")

MAX_REASON = 500


class Failure(NamedTuple):
    """Why an event was not delivered, and whether it is tried again."""

    reason: str
    dead: bool = False
    retry_after: float | None = None
    """What the receiver asked for, in seconds."""


class Judge:
    """Turns what one alias's plugin raises into failures. Never raises itself."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin
        self._last: str | None = None

    @property
    def resends_uncertain(self) -> bool:
        """Whether an event of unknown fate is sent again."""
        return self._plugin.dedupes or self._plugin.lane.ON_UNCERTAIN == "resend"

    def judge(self, error: BaseException) -> Failure:
        reason = self.describe(error)
        if isinstance(error, RetryableError):
            return Failure(reason, retry_after=error.retry_after)
        if isinstance(error, PermanentError):
            return Failure(reason, dead=True)
        if isinstance(error, UncertainError):
            return Failure(reason, dead=not self.resends_uncertain)
        if not isinstance(error, DeliveryError):
            self._explain(error, reason)
        return Failure(reason)

    def describe(self, error: BaseException) -> str:
        """The error in one line that every database can store, without the plugin's secrets."""
        try:
            text = f"{type(error).__name__}: {error}".removesuffix(": ")
        except Exception:
            text = type(error).__name__
        return self._storable(text)[:MAX_REASON]

    def trace(self, error: BaseException) -> str:
        """The traceback, likewise."""
        return self._storable("".join(traceback.format_exception(error)))

    def recovered(self) -> None:
        """Something was delivered: the next trouble is news."""
        self._last = None

    def _explain(self, error: BaseException, reason: str) -> None:
        """Log the traceback of what the plugin did not mean to raise, once for the same trouble in a row."""
        if reason != self._last:
            self._last = reason
            logger.warning("plugin %s failed without saying why:\n%s", self._plugin.alias, self.trace(error))

    def _storable(self, text: str) -> str:
        text = redacted(text, self._plugin.options).replace("\0", "\ufffd")
        return text.encode("utf-8", "replace").decode()
