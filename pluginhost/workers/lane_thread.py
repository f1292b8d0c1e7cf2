"""One thread of one lane in a worker process, and what tells that its hook hangs."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError
from django.db import close_old_connections, connections, reset_queries

from pluginhost.delivery.settling import MAX_RETRY_AFTER
from pluginhost.delivery.work import step

if TYPE_CHECKING:
    from collections.abc import Callable

    from pluginhost.delivery.runner import Runner
    from pluginhost.delivery.settling import Outcome

logger = logging.getLogger("pluginhost.worker")

#: Seconds between two looks at an empty outbox: at first, and at most.
POLL_FIRST, POLL_LAST = 0.05, 1.0
#: Seconds that a lane rests after a receiver's first failure, and at most.
REST_FIRST, REST_LAST = 0.5, 60.0
#: Seconds beyond its time-out after which a hook is taken to hang.
GRACE = 5.0
#: Seconds that a process which has to end has for its log.
SECONDS_TO_SAY = 2.0
#: So many message ids of a batch are named in a log line.
NAMED = 10


class Trouble:
    """Logs that the database refuses once, and that it works again, however long it lasts."""

    def __init__(self, who: str) -> None:
        self.who = who
        self.lasting = False

    def begins(self, error: DatabaseError) -> None:
        if not self.lasting:
            logger.warning("%s: the database refuses; tried again until it does not: %s", self.who, error)
        self.lasting = True

    def ends(self) -> None:
        if self.lasting:
            logger.warning("%s: the database works again", self.who)
        self.lasting = False


class Rest:
    """When a receiver is asked again, whatever else is due: later at each failure in a row."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    @property
    def seconds(self) -> float:
        """How long it still lasts; 0 if it is over."""
        return max(0.0, self._until - time.monotonic())

    def after(self, outcome: Outcome) -> None:
        """Begin if the receiver has refused; it did not do so in a row if something was finished."""
        if outcome.deferred is None or outcome.done:
            self._failures = 0
        if outcome.deferred is not None:
            self.begin(outcome.deferred.retry_after)

    def begin(self, asked: float | None = None) -> None:
        """``asked`` are the seconds that the receiver wants, at least."""
        self._failures += 1
        doubled = min(REST_FIRST * 2.0 ** min(self._failures - 1, 20), REST_LAST)
        own = random.uniform(0.5, 1.0) * doubled  # noqa: S311 - jitter
        self._until = time.monotonic() + max(min(asked or 0.0, MAX_RETRY_AFTER), own)


class LaneThread(threading.Thread):
    """Delivers one lane's batches, one after the other."""

    def __init__(self, runner: Runner, using: str, stop: threading.Event, number: int) -> None:
        super().__init__(name=f"pluginhost-{runner.alias}-{number}", daemon=True)
        self.runner = runner
        self.using = using
        self.stop = stop
        self.wake = threading.Event()
        self.rest = Rest()
        self.trouble = Trouble(f"lane {runner.alias}")

    def run(self) -> None:
        pause = POLL_FIRST
        try:
            while not self.stop.is_set():
                worked = self._step()
                pause = POLL_FIRST if worked else min(pause * 2, POLL_LAST)
                if rest := self.rest.seconds:
                    self.stop.wait(rest)
                elif not worked:
                    self.wake.wait(pause)
                    self.wake.clear()
        finally:
            connections.close_all()

    def _step(self) -> bool:
        """One step: whether there was anything to do. A database that refuses is no failure of the receiver."""
        try:
            outcome = step(self.runner, self.using, self.stop.is_set)
        except DatabaseError as error:
            self.trouble.begins(error)
            connections[self.using].close()
            return False
        except Exception as error:
            logger.error("lane %s: a step failed:\n%s", self.runner.alias, self.runner.judge.trace(error))
            self.rest.begin()
            return False
        finally:
            tidy_up()
        self.trouble.ends()
        if outcome is None:
            return False
        self.rest.after(outcome)
        return True

    def hangs(self) -> bool:
        """Whether its call of the plugin has taken far longer than it may."""
        return hangs(self.runner, self.ident)


def hangs(runner: Runner, thread: int | None) -> bool:
    """Whether this thread's call of the plugin has taken far longer than it may."""
    return runner.calling_for(thread) > runner.plugin.timeout + GRACE


def hang(runner: Runner, thread: int | None) -> str:
    """What is to be said of a hook that hangs: for how long, and with which events in hand."""
    ids = runner.in_hand(thread)
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    held = f"; in hand: {', '.join(ids[:NAMED])}{more}" if ids else ""
    return f"no answer after {runner.calling_for(thread):.0f} s{held}"


def say_last(say: Callable[[], object]) -> None:
    """Log, before the process ends for a hook that hangs: for seconds only, for the hook may hold a handler's lock."""
    thread = threading.Thread(target=say, name="pluginhost-last-words", daemon=True)
    thread.start()
    thread.join(SECONDS_TO_SAY)


def tidy_up() -> None:
    """Between two batches: no connection outlives its age, and a DEBUG process keeps no list of queries."""
    close_old_connections()
    reset_queries()
