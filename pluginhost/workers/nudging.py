"""What Celery's tasks do: take envelopes, find the lanes that have something to do, and work one off for a while.

Knows no Celery. The broker only says "look": what is to be done is in the
database, so a message that is lost, late or repeated changes nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError
from django.db import connections, reset_queries

from pluginhost.delivery.intake import take
from pluginhost.delivery.lanes import in_hand, is_due
from pluginhost.delivery.work import step
from pluginhost.registry import get_registry
from pluginhost.workers.draining import DrainWatch
from pluginhost.workers.lane_thread import Rest, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pluginhost.delivery.runner import Runner
    from pluginhost.delivery.settling import Outcome

logger = logging.getLogger("pluginhost.worker")

#: Seconds that one look takes envelopes for, at most; the next one goes on.
SECONDS_TO_TAKE = 2.0
#: Seconds that one task works for a lane before it lets others have the process.
SECONDS_TO_WORK = 10.0


_rests: dict[tuple[str, str], Rest] = {}
_troubles: dict[str, Trouble] = {}


def look(using: str) -> list[Runner]:
    """Take what requests have left, for two seconds at most. Returns the lanes that nobody works for, but should."""
    with _guarded("intake", using):
        end = time.monotonic() + SECONDS_TO_TAKE
        while take(using) and time.monotonic() < end:
            reset_queries()
        runners = get_registry().runners.values()
        return [runner for runner in runners if is_due(runner.alias, using) and _free(runner, using)]
    return []


def _free(runner: Runner, using: str) -> bool:
    return in_hand(runner, using) < runner.plugin.concurrency


def work_off(
    lane: str, using: str, *, stopping: Callable[[], bool] = lambda: False, takes_over: bool = False
) -> Runner | None:
    """Deliver for one lane until nothing is due, its receiver wants a rest, or ten seconds are over.

    A lane that this process does not know, because an older or newer version of the
    site runs beside it, is left to those that do. ``takes_over`` says that whoever
    worked for it has died, so that what it held need not be waited for. Returns the
    lane's runner if there is more to do.
    """
    runner = get_registry().runners.get(lane)
    if runner is None or (rest := _rests.setdefault((lane, using), Rest())).seconds:
        return None
    end = time.monotonic() + SECONDS_TO_WORK

    def enough() -> bool:
        return stopping() or time.monotonic() > end

    with _guarded(f"lane {lane}", using):
        if not takes_over and not _free(runner, using):
            return None
        with _watched(runner, using):
            while not enough():
                outcome = _step(runner, using, enough, rest)
                if outcome is None or outcome.deferred is not None:
                    return None
                if not takes_over and not _free(runner, using):  # two began at once: the first to look leaves
                    return None
        return None if stopping() else runner
    return None


def _step(runner: Runner, using: str, enough: Callable[[], bool], rest: Rest) -> Outcome | None:
    """One step; None if nothing was due, or if the host itself failed."""
    try:
        outcome = step(runner, using, enough)
    except DatabaseError:
        raise
    except Exception as error:
        logger.error("lane %s: a step failed:\n%s", runner.alias, runner.judge.trace(error))
        rest.begin()
        return None
    finally:
        reset_queries()
    if outcome is not None:
        rest.after(outcome)
    return outcome


@contextmanager
def _watched(runner: Runner, using: str) -> Iterator[None]:
    """End the process if the hook hangs, in whatever pool: the supervisor, or the pool, starts another."""
    watch = DrainWatch([runner], threading.get_ident(), using)
    watch.start()
    try:
        yield
    finally:
        watch.over.set()


@contextmanager
def _guarded(who: str, using: str) -> Iterator[None]:
    """Survive a database that is away: the next look finds everything as it was."""
    trouble = _troubles.setdefault(f"{who} {using}", Trouble(who))
    try:
        yield
    except DatabaseError as error:
        trouble.begins(error)
        let_go()
    else:
        trouble.ends()


def let_go() -> None:
    """Close this thread's connections, which may be broken, unless one is in the middle of somebody's transaction."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


def reset() -> None:
    """Forget how long this process leaves receivers alone, and what it has told."""
    _rests.clear()
    _troubles.clear()
