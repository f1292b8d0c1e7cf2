"""Sends events in requests of a size that the server can answer in time, and few times if it does not answer.

Matomo cannot tell a repeated hit from a new one. A server that records and is too
slow to say so would count an event at each attempt, so the attempts without an
answer are numbered.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from pluginhost import DeliveryError, PermanentError, RetryableError, UncertainError
from pluginhost_piwik.refusals import once_more

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pluginhost_piwik.answers import Answer
    from pluginhost_piwik.refusals import Sent

    Post = Callable[[Sequence[Sent]], Answer]
    Judge = Callable[[Sequence[Sent], Answer, int], dict[str, Exception]]

#: So often an event is sent, at most, if no answer comes: once and twice more. The last time it is alone.
MAX_SENDS = 3
#: Events whose sends without an answer are remembered; the oldest are forgotten.
MAX_REMEMBERED = 10_000
#: After a request without an answer the next ones are so much smaller, and after a quick answer twice as large.
SMALLER, LARGER = 10, 2
UNLIMITED = 1_000_000


class Sender:
    """Sends the events of one alias. Threads may share it.

    ``post`` sends events in one request, ``ask`` sends a request without any, and
    ``judge`` says which events failed by the answer and the number of the attempt.
    """

    def __init__(
        self, post: Post, ask: Callable[[], None], judge: Judge, *, resends: bool, spare: float, quick: float
    ) -> None:
        """``resends`` is whether an event of unknown fate may be sent again.

        A request is begun within the first ``spare`` seconds of a call, so that it can
        end within the call's own limit. An answer within ``quick`` seconds allows
        larger requests.
        """
        self._post, self._ask, self._judge = post, ask, judge
        self._resends, self._spare, self._quick = resends, spare, quick
        self._lock = threading.Lock()
        self._sends: dict[str, int] = {}
        self._limit = UNLIMITED
        self._in_doubt = False

    def send(self, sent: Sequence[Sent], attempt: int) -> dict[str, Exception]:
        """Send the events in their order, and return those that failed, by message id.

        Raises a ``DeliveryError`` if it speaks of all of them, as when nothing was
        recorded yet. After a request that failed no other one is tried.
        """
        begun = time.monotonic()
        if self._in_doubt:
            self._find_out(sent, begun)
        failures: dict[str, Exception] = {}
        done = 0
        while done < len(sent):
            if done and time.monotonic() - begun > self._spare:
                return failures | _not_tried(sent[done:], "there was no time left for it", 0.0)
            part = self._next(sent[done:])
            rest = sent[done + len(part) :]
            try:
                failures |= self._request(part, attempt)
            except UncertainError as error:
                fates = self._fates(part, str(error))
                if not done:
                    self._raise_for_all(fates)
                return failures | fates | _not_tried(rest, str(error))
            except DeliveryError as error:
                if not done:
                    raise
                # What is too large for one request is no event's fault yet.
                whole = isinstance(error, PermanentError) and len(part) > 1
                own = dict.fromkeys(_ids(part), DeliveryError(str(error)) if whole else error)
                return failures | own | _not_tried(rest, str(error), getattr(error, "retry_after", None))
            done += len(part)
        return failures

    def _find_out(self, sent: Sequence[Sent], begun: float) -> None:
        """Whether the server answers again. As long as it does not, no event is put at risk."""
        try:
            self._ask()
        except RetryableError as error:
            reason = f"{error}; it did not answer before, and is sent events when it answers a request without any"
            if unknown := sum(event.message_id in self._sends for event in sent):
                reason += f"; of {len(sent)} that wait, {unknown} were sent already, and may have been counted"
            raise RetryableError(reason, retry_after=error.retry_after) from None
        self._in_doubt = False
        if time.monotonic() - begun > self._spare:
            raise RetryableError("the server answers again, slowly", retry_after=0.0)

    def _next(self, rest: Sequence[Sent]) -> Sequence[Sent]:
        """What goes into the next request: an event that may be sent but once more is alone in it."""
        size = 0
        for event in rest[: self._limit]:
            if self._sends.get(event.message_id, 0) >= MAX_SENDS - 1:
                break
            size += 1
        return rest[: max(size, 1)]

    def _request(self, part: Sequence[Sent], attempt: int) -> dict[str, Exception]:
        begun = time.monotonic()
        limit = self._limit
        try:
            answer = self._post(part)
        except UncertainError:
            self._in_doubt = True
            self._limit = max(len(part) // SMALLER, 1)
            raise
        if len(part) >= limit and time.monotonic() - begun < self._quick:
            self._limit = min(limit * LARGER, UNLIMITED)
        failures = self._judge(part, answer, attempt)
        with self._lock:
            for message_id in _ids(part):
                self._sends.pop(message_id, None)
        return failures

    def _fates(self, part: Iterable[Sent], reason: str) -> dict[str, Exception]:
        """What becomes of events of which nobody knows whether they were recorded.

        An order is sent again in any case: Matomo counts its id once.
        """
        with self._lock:
            return {
                event.message_id: once_more(reason) if event.counted_once else self._fate(event.message_id, reason)
                for event in part
            }

    def _fate(self, message_id: str, reason: str) -> DeliveryError:
        if not self._resends:
            return UncertainError(reason)
        sends = self._sends.pop(message_id, 0) + 1
        if sends >= MAX_SENDS:
            return PermanentError(
                f"{reason}; it was sent {sends} times without an answer, and may have been counted each time: a replay"
                " may count it again"
            )
        self._sends[message_id] = sends
        if len(self._sends) > MAX_REMEMBERED:
            del self._sends[next(iter(self._sends))]
        return UncertainError(reason)

    def _raise_for_all(self, fates: dict[str, Exception]) -> None:
        """Let the whole batch wait, if all that was sent of it is sent again: the server is not asked for the rest."""
        errors = list(fates.values())
        doubts = [error for error in errors if isinstance(error, UncertainError)]
        if all(isinstance(error, RetryableError) for error in errors):
            raise errors[0]
        if self._resends and all(isinstance(error, UncertainError | RetryableError) for error in errors):
            raise doubts[0]


def _ids(events: Iterable[Sent]) -> list[str]:
    return [event.message_id for event in events]


def _not_tried(events: Iterable[Sent], reason: str, retry_after: float | None = None) -> dict[str, Exception]:
    error = RetryableError(f"not sent yet: {reason}", retry_after=retry_after)
    return dict.fromkeys(_ids(events), error)
