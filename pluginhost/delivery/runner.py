"""One alias's plugin in this process: set up once, called for batches, watched, and closed."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from pluginhost import metrics
from pluginhost.db import harmless
from pluginhost.delivery.attempt import RAISED, Attempt, Result
from pluginhost.delivery.decoding import LARGE
from pluginhost.delivery.failures import Judge
from pluginhost.delivery.pacing import Pace
from pluginhost.dispatch import inside
from pluginhost.exceptions import SkipEvent
from pluginhost.options import redacted
from pluginhost.plugin import wants_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pluginhost.events import Event
    from pluginhost.loading import Loaded
    from pluginhost.plugin import Person, Plugin

logger = logging.getLogger("pluginhost.delivery")

#: Seconds that ``close`` waits for a ``setup`` or ``close`` that is under way.
PATIENCE_TO_CLOSE = 1.0


class Runner:
    """Calls one plugin's delivery hook. Used by one thread, or by as many as ``concurrency`` says."""

    def __init__(self, loaded: Loaded, screeners: tuple[Plugin, ...] = ()) -> None:
        """``screeners`` are the plugins that are asked whether any lane may have an event."""
        self._screeners = screeners
        self.unread = frozenset(loaded.plugin.unread).intersection(LARGE, *(screener.unread for screener in screeners))
        """What of an event neither the plugin nor a screener looks at."""
        self.plugin = loaded.plugin
        self.alias = loaded.plugin.alias
        self.judge = Judge(loaded.plugin)
        self.one_by_one = loaded.delivery_hook == "on_event"
        self._deliver = loaded.deliver
        self._lock = threading.Lock()
        self._prepared_in: int | None = None
        self._trouble: dict[str, str] = {}
        """Screener -> what it raised last: the same trouble is told once."""
        self.pace = Pace(loaded.plugin.lane.RATE_LIMIT)
        self._calls: dict[int, tuple[float, Sequence[Event]]] = {}
        """Thread -> when its call of the plugin began, by the monotonic clock, and the events that it is about."""

    @property
    def batch_size(self) -> int:
        """Events a batch. A batch is what may be repeated after a kill, so it is one where a repeat counts twice.

        With a RATE_LIMIT it is no more than what may be handed over in a second.
        """
        return self.pace.fit(self.plugin.batch_size or self._usual_batch_size)

    @property
    def _usual_batch_size(self) -> int:
        if not self.one_by_one:
            return 500
        return 100 if self.plugin.dedupes else 1

    def run(
        self,
        events: Sequence[Event],
        *,
        attempt: int = 1,
        keep: Callable[[], None] = lambda: None,
        stopping: Callable[[], bool] = lambda: False,
        paced: bool = True,
    ) -> Result:
        """Deliver ``events``, and say what became of them.

        ``keep`` is called between calls of the hook, to keep the claim on them;
        ``stopping`` between single events, and while the RATE_LIMIT makes it wait, to end
        early. ``paced`` says whether there is a RATE_LIMIT for this caller.
        """
        with inside(self.alias):
            try:
                self._prepare()
            except RAISED as error:
                return Result(deferred=self.judge.judge(error))
            run = Attempt(
                self,
                [self._own(event) if event.visitor_ids else event for event in events],
                attempt,
                keep=keep,
                stopping=stopping,
                pace=self.pace if paced else Pace(None),
            )
            if self.one_by_one:
                run.one_by_one()
            else:
                run.in_batches()
            return run.result

    def _own(self, event: Event) -> Event:
        """The event without what other providers' cookies say of the browser."""
        if event.visitor_ids.keys() <= {self.alias}:
            return event
        own = {alias: id_ for alias, id_ in event.visitor_ids.items() if alias == self.alias}
        return msgspec.structs.replace(event, visitor_ids=own)

    def send_test(self) -> str:
        """Let the plugin send its test event. Raises whatever it raises."""
        with inside(self.alias):
            self._prepare()
            return self.plugin.send_test()

    def forget(self, person: Person) -> str:
        """Let the plugin delete what its receiver has of a person. Raises whatever it raises."""
        with inside(self.alias):
            self._prepare()
            with self._watched():
                return self.plugin.forget(person)

    def explain(self, message_id: str) -> str | None:
        """Let the plugin say what its receiver has of an event. Raises whatever it raises."""
        with inside(self.alias):
            self._prepare()
            with self._watched():
                return self.plugin.explain(message_id)

    @property
    def wants_all(self) -> bool:
        """Whether no event need be asked about with ``wants``."""
        return not self._screeners and wants_all(self.plugin)

    @property
    def is_open(self) -> bool:
        """Whether the plugin has been set up in this process, and not been closed since."""
        return self._prepared_in == os.getpid()

    def wants(self, event: Event) -> bool:
        """Whether the event is handed over. Raises what ``Plugin.wants`` raises."""
        for screener in self._screeners:
            if not self._passes(screener, event):
                return False
        return self.plugin.wants(event)

    def _passes(self, screener: Plugin, event: Event) -> bool:
        try:
            with self._watched((event,)), harmless():
                passes = screener.screen(event) is not False
        except Exception as error:
            if self._trouble.get(screener.alias) != (trouble := type(error).__name__):
                self._trouble[screener.alias] = trouble
                reason = redacted(f"{trouble}: {error}", screener.options)
                logger.error("plugin %s: screen failed, and has no opinion: %s", screener.alias, reason)
            return True
        self._trouble.pop(screener.alias, None)
        return passes

    def call(self, **argument: Any) -> None:
        """Call the hook once, under watch."""
        assert self._deliver is not None
        begun = time.monotonic()
        failed: BaseException | None = None
        try:
            with self._watched(argument["batch"] if "batch" in argument else (argument["event"],)):
                self._deliver(**argument)
        except SkipEvent:
            raise
        except BaseException as error:
            failed = error
            raise
        finally:
            if measured := metrics.instruments():
                measured.called(self.alias, time.monotonic() - begun, failed)

    def calling_for(self, thread: int | None) -> float:
        """Seconds that this thread's call of the plugin has taken so far; 0 if it makes none."""
        call = self._calls.get(thread or 0)
        return 0.0 if call is None else time.monotonic() - call[0]

    def in_hand(self, thread: int | None) -> list[str]:
        """The message ids of the events that this thread's call of the plugin is about."""
        call = self._calls.get(thread or 0)
        return [] if call is None else [event.message_id for event in call[1]]

    def close(self) -> None:
        """Let the plugin close what it opened in this process. Does not wait for a call that hangs."""
        if not self._lock.acquire(timeout=PATIENCE_TO_CLOSE):
            logger.error("plugin %s: not closed, because its setup has not ended", self.alias)
            return
        try:
            if self._prepared_in == os.getpid():
                self._prepared_in = None
                self.plugin.close()
        except RAISED as error:
            logger.error("plugin %s: close failed:\n%s", self.alias, self.judge.trace(error))
        finally:
            self._lock.release()

    def _prepare(self) -> None:
        with self._lock:
            if self._prepared_in != os.getpid():
                with self._watched():
                    self.plugin.setup()
                self._prepared_in = os.getpid()

    @contextmanager
    def _watched(self, events: Sequence[Event] = ()) -> Iterator[None]:
        thread = threading.get_ident()
        self._calls[thread] = time.monotonic(), events
        try:
            yield
        finally:
            del self._calls[thread]
