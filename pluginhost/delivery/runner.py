"""Runs one batch through one plugin and says what became of each event. Knows no database.

Events are tried in their order. What is before ``Result.done`` is finished or has
failed on its own; from there on nothing was tried, and everything waits.
"""

from __future__ import annotations

import logging
import os
import traceback
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import msgspec

from pluginhost import delivery
from pluginhost.events import Batch
from pluginhost.exceptions import (
    DeliveryError,
    PartialFailure,
    PermanentError,
    RetryableError,
    SkipEvent,
    UncertainError,
)
from pluginhost.plugin import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pluginhost.events import Event
    from pluginhost.loading import Loaded

logger = logging.getLogger("pluginhost.delivery")

#: An unexplained failure of a whole batch is retried so often before its events are suspected one by one.
PATIENCE = 3
#: Failures in a row after which the receiver is suspected, not the events: halving 500 events takes 9.
IN_A_ROW = 10
MAX_REASON = 500


class Failure(NamedTuple):
    """Why an event was not delivered, and whether it is tried again."""

    reason: str
    dead: bool = False
    retry_after: float | None = None


@dataclass
class Result:
    """What became of a batch."""

    done: int = 0
    """So many events from the start are finished or in ``failures``."""
    skipped: int = 0
    failures: dict[int, Failure] = field(default_factory=dict)
    deferred: Failure | None = None
    """Why the events from ``done`` on were not tried."""

    @property
    def delivered(self) -> int:
        return self.done - self.skipped - len(self.failures)


class Runner:
    """One alias's plugin in this process: prepared once, called for batches."""

    def __init__(self, loaded: Loaded) -> None:
        self.plugin = loaded.plugin
        self.alias = loaded.plugin.alias
        self._deliver = loaded.deliver
        self.one_by_one = loaded.delivery_hook == "on_event"
        self._lock = Lock()
        self._prepared_in: int | None = None

    @property
    def batch_size(self) -> int:
        """Events a batch. A batch is what may be repeated after a kill, so it is one where a repeat counts twice."""
        if self.plugin.batch_size is not None:
            return self.plugin.batch_size
        if not self.one_by_one:
            return 500
        return 100 if self.plugin.dedupes else 1

    @property
    def resends_uncertain(self) -> bool:
        """Whether an event of unknown fate is sent again."""
        return self.plugin.dedupes or self.plugin.lane.ON_UNCERTAIN == "resend"

    def close(self) -> None:
        """Let the plugin close what it opened in this process."""
        with self._lock:
            if self._prepared_in == os.getpid():
                self._prepared_in = None
                try:
                    self.plugin.close()
                except Exception:
                    logger.exception("plugin %s: close failed", self.alias)

    def run(self, events: Sequence[Event], *, attempt: int = 1, keep: Callable[[], None] = lambda: None) -> Result:
        """Deliver ``events``. ``keep`` is called between single events, to keep the claim on them."""
        token = delivery._hook.set(self.alias)
        try:
            self._prepare()
        except Exception as error:
            return Result(deferred=self._failure(error))
        else:
            run = _Run(self, events, attempt, keep)
            (run.one_by_one if self.one_by_one else run.in_batches)()
            return run.result
        finally:
            delivery._hook.reset(token)

    def _prepare(self) -> None:
        with self._lock:
            if self._prepared_in != os.getpid():
                self.plugin.setup()
                self._prepared_in = os.getpid()

    def deliver(self, argument: Event | Batch) -> None:
        assert self._deliver is not None
        self._deliver(**{"event" if self.one_by_one else "batch": argument})

    def _failure(self, error: Exception) -> Failure:
        """What an exception means for the events it speaks of."""
        reason = self._redacted(f"{type(error).__name__}: {error}".removesuffix(": "))[:MAX_REASON]
        if isinstance(error, RetryableError):
            return Failure(reason, retry_after=error.retry_after)
        if isinstance(error, PermanentError):
            return Failure(reason, dead=True)
        if isinstance(error, UncertainError):
            return Failure(reason, dead=not self.resends_uncertain)
        if not isinstance(error, DeliveryError):
            lines = "".join(traceback.format_exception(error))
            logger.warning("plugin %s failed without saying why:\n%s", self.alias, self._redacted(lines))
        return Failure(reason)

    def _redacted(self, text: str) -> str:
        """``text`` without the secrets among the plugin's options, nor the password of one that is a URL."""
        for field_ in msgspec.structs.fields(self.plugin.options) if self.plugin.options is not None else ():
            value = getattr(self.plugin.options, field_.name)
            if isinstance(value, Secret) and value:
                for secret in (value.reveal(), _password(value.reveal())):
                    if secret:
                        text = text.replace(secret, "********")
        return text


def _password(text: str) -> str | None:
    try:
        return urlsplit(text).password
    except ValueError:
        return None


class _Run:
    """One batch on its way through."""

    def __init__(self, runner: Runner, events: Sequence[Event], attempt: int, keep: Callable[[], None]) -> None:
        self.runner = runner
        self.events = events
        self.attempt = attempt
        self.keep = keep
        self.result = Result()
        self.skipped: set[int] = set()
        self.in_a_row = 0

    def one_by_one(self) -> None:
        for index in range(len(self.events)):
            if self.wanted(index):
                self.keep()
                if not self.attempt_slice([index]):
                    break
        else:
            self.result.done = len(self.events)
        self.finish()

    def in_batches(self) -> None:
        wanted = [index for index in range(len(self.events)) if self.wanted(index)]
        if not wanted or self.attempt_slice(wanted):
            self.result.done = len(self.events)
        self.finish()

    def wanted(self, index: int) -> bool:
        if self.runner.plugin.wants(self.events[index]):
            return True
        self.skipped.add(index)
        return False

    def finish(self) -> None:
        self.result.skipped = sum(index < self.result.done for index in self.skipped)

    def attempt_slice(self, indices: list[int]) -> bool:
        """Deliver these events; False if they and all after them have to wait."""
        error = self.call(indices)
        if error is None:
            self.in_a_row = 0
            return True
        self.in_a_row += 1
        if isinstance(error, SkipEvent):
            self.skipped.update(indices)
            self.in_a_row = 0
            return True
        if isinstance(error, PartialFailure):
            self.in_a_row = 0
            return self.partly(indices, error)
        failure = self.runner._failure(error)
        if self.must_wait(error, failure, indices):
            self.result.done = indices[0]
            self.result.deferred = failure
            return False
        if len(indices) == 1 or isinstance(error, UncertainError):
            self.result.failures.update(dict.fromkeys(indices, failure))
            return True
        self.keep()
        middle = len(indices) // 2
        return self.attempt_slice(indices[:middle]) and self.attempt_slice(indices[middle:])

    def call(self, indices: list[int]) -> Exception | None:
        events = [self.events[index] for index in indices]
        try:
            if self.runner.one_by_one:
                self.runner.deliver(events[0])
            else:
                self.runner.deliver(Batch(events, attempt=self.attempt))
        except Exception as error:
            return error
        return None

    def must_wait(self, error: Exception, failure: Failure, indices: list[int]) -> bool:
        """Whether a failure speaks of the receiver, so that what comes after need not be tried."""
        if failure.dead:
            return False
        if isinstance(error, (RetryableError, UncertainError)):
            return True
        if self.in_a_row >= IN_A_ROW:
            return True
        return len(indices) > 1 and self.attempt < PATIENCE

    def partly(self, indices: list[int], error: PartialFailure) -> bool:
        for index in indices:
            own = error.errors.get(self.events[index].message_id)
            if isinstance(own, SkipEvent):
                self.skipped.add(index)
            elif own is not None:
                self.result.failures[index] = self.runner._failure(own)
        return True
