"""One batch on its way through one plugin. Knows no database.

Events are tried in their order. What is before ``Result.done`` is finished or has
failed on its own; from there on nothing was tried, and everything waits.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from pluginhost import metrics
from pluginhost.events import Batch
from pluginhost.exceptions import PartialFailure, RetryableError, SkipEvent, UncertainError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pluginhost.delivery.failures import Failure
    from pluginhost.delivery.pacing import Pace
    from pluginhost.delivery.runner import Runner
    from pluginhost.events import Event

#: An unexplained failure of a whole batch is retried so often before its events are suspected one by one.
PATIENCE = 3
#: Failures in a row after which the receiver is suspected, not the events, if halving the batch does not take more.
IN_A_ROW = 10
#: What a hook may raise without ending its lane; a KeyboardInterrupt ends it.
RAISED = (Exception, SystemExit, asyncio.CancelledError)


class Result(msgspec.Struct):
    """What became of a batch."""

    done: int = 0
    """So many events from the start are finished or in ``failures``."""
    skipped: int = 0
    failures: dict[int, Failure] = {}
    deferred: Failure | None = None
    """Why the events from ``done`` on were not tried; None also if the worker was told to stop there."""

    @property
    def delivered(self) -> int:
        return self.done - self.skipped - len(self.failures)


class Attempt:
    """Runs the events of one batch, and collects what became of them in ``result``."""

    def __init__(
        self,
        runner: Runner,
        events: Sequence[Event],
        number: int,
        *,
        keep: Callable[[], None],
        stopping: Callable[[], bool],
        pace: Pace,
    ) -> None:
        self.runner = runner
        self.events = events
        self.number = number
        self.keep = keep
        self.stopping = stopping
        self.pace = pace
        self.result = Result(done=len(events))
        self._skipped: set[int] = set()
        self._in_a_row = 0
        # One bad event fails with all of them, then with each half that it is in, until it is alone.
        self._too_many = max(IN_A_ROW, len(events).bit_length() + 1)

    def one_by_one(self) -> None:
        for index in range(len(self.events)):
            if index and self.stopping():
                self.result.done = index
                break
            if self._wanted(index):
                self.keep()
                if not self._slice([index]):
                    break
        self._finish()

    def in_batches(self) -> None:
        every = range(len(self.events))
        wanted = [*every] if self.runner.wants_all else [index for index in every if self._wanted(index)]
        if wanted:
            self._slice(wanted)
        self._finish()

    def _wanted(self, index: int) -> bool:
        try:
            if self.runner.wants(self.events[index]):
                return True
        except RAISED as error:
            self.result.failures[index] = self.runner.judge.judge(error)
        else:
            self._skipped.add(index)
        return False

    def _finish(self) -> None:
        """Forget what was found out about events that were then not reached."""
        done = self.result.done
        self.result.skipped = sum(index < done for index in self._skipped)
        self.result.failures = {index: f for index, f in self.result.failures.items() if index < done}
        if measured := metrics.instruments():
            others = self._skipped | self.result.failures.keys()
            measured.delivered(self.runner.alias, [self.events[index] for index in range(done) if index not in others])

    def _slice(self, indices: list[int]) -> bool:
        """Deliver these events; False if they and all after them have to wait."""
        if not self.pace.wait(len(indices), self.keep, self.stopping):
            self.result.done = indices[0]
            return False
        error = self._call(indices)
        if error is None or isinstance(error, SkipEvent):
            self._skipped.update(indices if error else ())
            self._in_a_row = 0
            self.runner.judge.recovered()
            return True
        if isinstance(error, PartialFailure):
            self._partly(indices, error)
            return True
        self._in_a_row += 1
        failure = self.runner.judge.judge(error)
        if self._must_wait(error, failure, indices):
            self.result.done = indices[0]
            self.result.deferred = failure
            return False
        if len(indices) == 1 or isinstance(error, UncertainError):
            self.result.failures.update(dict.fromkeys(indices, failure))
            return True
        self.keep()
        middle = len(indices) // 2
        return self._slice(indices[:middle]) and self._slice(indices[middle:])

    def _call(self, indices: list[int]) -> BaseException | None:
        events = [self.events[index] for index in indices]
        try:
            if self.runner.one_by_one:
                self.runner.call(event=events[0])
            else:
                self.runner.call(batch=Batch(events, attempt=self.number))
        except RAISED as error:
            return self._checked(error, events) if isinstance(error, PartialFailure) else error
        return None

    def _checked(self, error: PartialFailure, events: Sequence[Event]) -> Exception:
        """A PartialFailure that names others' events says nothing that could be relied on."""
        strange = error.errors.keys() - {event.message_id for event in events}
        if not strange:
            return error
        return ValueError(f"PartialFailure names {len(strange)} events that are not in the batch")

    def _must_wait(self, error: BaseException, failure: Failure, indices: list[int]) -> bool:
        """Whether a failure speaks of the receiver, so that what comes after need not be tried."""
        if failure.dead:
            return False
        if isinstance(error, (RetryableError, UncertainError)) or self._in_a_row >= self._too_many:
            return True
        return len(indices) > 1 and self.number < PATIENCE

    def _partly(self, indices: list[int], error: PartialFailure) -> None:
        self._in_a_row = 0
        for index in indices:
            own = error.errors.get(self.events[index].message_id)
            if isinstance(own, SkipEvent):
                self._skipped.add(index)
            elif own is not None:
                self.result.failures[index] = self.runner.judge.judge(own)
