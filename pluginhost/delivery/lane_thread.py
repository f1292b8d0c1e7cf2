"""One thread of one lane in a worker process, and what tells that its hook hangs."""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError
from django.db import close_old_connections, connections, reset_queries

from pluginhost.delivery.settling import MAX_RETRY_AFTER
from pluginhost.delivery.work import step

if TYPE_CHECKING:
    from pluginhost.delivery.runner import Runner

logger = logging.getLogger("pluginhost.worker")

#: Seconds between two looks at an empty outbox: at first, and at most.
POLL_FIRST, POLL_LAST = 0.05, 1.0
#: Seconds that a lane rests after a receiver's first failure, and at most.
REST_FIRST, REST_LAST = 0.5, 60.0
#: Seconds beyond its time-out after which a hook is taken to hang.
GRACE = 5.0
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


class LaneThread(threading.Thread):
    """Delivers one lane's batches, one after the other."""

    def __init__(self, runner: Runner, using: str, stop: threading.Event, number: int) -> None:
        super().__init__(name=f"pluginhost-{runner.alias}-{number}", daemon=True)
        self.runner = runner
        self.using = using
        self.stop = stop
        self.wake = threading.Event()
        self.failures = 0
        self.trouble = Trouble(f"lane {runner.alias}")

    def run(self) -> None:
        pause = POLL_FIRST
        try:
            while not self.stop.is_set():
                worked, rest = self._step()
                pause = POLL_FIRST if worked else min(pause * 2, POLL_LAST)
                if rest:
                    self.stop.wait(rest)
                elif not worked:
                    self.wake.wait(pause)
                    self.wake.clear()
        finally:
            connections.close_all()

    def _step(self) -> tuple[bool, float]:
        """One step: whether there was anything to do, and how long to rest."""
        try:
            outcome = step(self.runner, self.using, self.stop.is_set)
        except DatabaseError as error:
            self.trouble.begins(error)
            connections[self.using].close()
            return False, self._rest()
        except Exception as error:
            logger.error("lane %s: a step failed:\n%s", self.runner.alias, self.runner.judge.trace(error))
            return False, self._rest()
        finally:
            tidy_up()
        self.trouble.ends()
        if outcome is None:
            return False, 0.0
        if outcome.deferred is None or outcome.done:
            self.failures = 0
        return True, 0.0 if outcome.deferred is None else self._rest(outcome.deferred.retry_after)

    def _rest(self, asked: float | None = None) -> float:
        """Seconds until the receiver is asked again, whatever else is due: doubled at each failure in a row."""
        self.failures += 1
        doubled = REST_FIRST * 2.0 ** min(self.failures - 1, 20)
        own = random.uniform(0.5, 1.0) * min(doubled, REST_LAST)  # noqa: S311 - jitter
        return max(min(asked or 0.0, MAX_RETRY_AFTER), own)

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


def tidy_up() -> None:
    """Between two batches: no connection outlives its age, and a DEBUG process keeps no list of queries."""
    close_old_connections()
    reset_queries()
