"""One step of one lane: claim a batch, run it, write down what became of it."""

from __future__ import annotations

import logging
import time
from itertools import islice
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError

from pluginhost.delivery.attempt import Result
from pluginhost.delivery.failures import Failure
from pluginhost.delivery.lanes import LeaseLost, claim
from pluginhost.delivery.marks import marks
from pluginhost.delivery.settling import Outcome, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pluginhost.delivery.lanes import Claim, Item
    from pluginhost.delivery.marks import Marks
    from pluginhost.delivery.runner import Runner
    from pluginhost.events import Event

logger = logging.getLogger("pluginhost.delivery")

#: An event that was first in its delivery at so many failures leaves it, so that it does not hold up the others.
HOLDS_UP = 3
#: After so many workers have died with a delivery in hand, its events are tried one at a time,
#: and after so many the one that was in hand each time is given up.
SUSPICIOUS_KILLS, DEADLY_KILLS = 2, 5
INTERRUPTED = Failure("a worker died while it delivered this; whether it arrived is not known", dead=True)
DEADLY = Failure("a worker died each time it delivered this", dead=True)


def step(runner: Runner, using: str, stopping: Callable[[], bool] = lambda: False) -> Outcome | None:
    """Claim one batch or more and deliver it. Returns the last outcome, or None if nothing was due.

    Database errors are raised; the claim then lapses, and its events are delivered again.
    """
    held = claim(runner, using)
    if held is None:
        return None
    try:
        return _work_off(runner, held, stopping)
    except LeaseLost:
        logger.warning("plugin %s: the lease ran out, and others have taken over", runner.alias)
    except DatabaseError:
        raise
    except Exception as error:
        # A fault of the host's own. Counted as an attempt, so that it does not go on for ever.
        logger.error("lane %s: a step failed:\n%s", runner.alias, runner.judge.trace(error))
        outcome = Outcome(held.items, 0, deferred=Failure(runner.judge.describe(error)))
        settle(held, outcome, runner.plugin.lane)
        return outcome
    return Outcome(held.items, 0)


def _work_off(runner: Runner, held: Claim, stopping: Callable[[], bool]) -> Outcome:
    """Deliver what is claimed, slice by slice."""
    outcome = Outcome(held.items, 0)
    # Only now that the claim is committed: who marks a person later sees it, and waits for it.
    if forgotten := marks(held.using):
        held.items = [_without_the_forgotten(item, forgotten) for item in held.items]
    careful = any(delivery.kills >= SUSPICIOUS_KILLS for delivery in held.deliveries.values())
    outcome = _give_up_the_uncertain(runner, held) or outcome
    for items in _slices(held.items, 1 if careful else runner.batch_size):
        outcome = _attempt(runner, held, items, stopping)
        settle(held, outcome, runner.plugin.lane)
        if outcome.deferred:
            return outcome
        if stopping():
            break
    held.release()
    return outcome


def _give_up_the_uncertain(runner: Runner, held: Claim) -> Outcome | None:
    """Give up what may have arrived before a worker died, if it must not be sent again. None if there is nothing.

    Before anything else is tried: what is given back, or waits, is no longer known to be uncertain.
    """
    if runner.judge.resends_uncertain or not held.interrupted:
        return None
    first, rest = held.items[: runner.batch_size], held.items[runner.batch_size :]
    # So many may have been on their way, and no others.
    uncertain = [item for item in first if item.delivery.pk in held.interrupted]
    if not uncertain:
        return None
    outcome = _attempt(runner, held, uncertain, stopping=lambda: True)
    settle(held, outcome, runner.plugin.lane)
    held.items = [item for item in first if item.delivery.pk not in held.interrupted] + rest
    held.interrupted = frozenset()
    return outcome


def _slices(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while slice_ := list(islice(rest, size)):
        yield slice_


def _attempt(runner: Runner, held: Claim, items: Sequence[Item], stopping: Callable[[], bool]) -> Outcome:
    """Run what can be run, and say what became of each item."""
    tried: list[int] = []
    events: list[Event] = []
    refused: dict[int, Failure] = {}
    suspicious = any(delivery.kills for delivery in held.deliveries.values())
    for index, item in enumerate(items):
        event = item.event
        if event is None:
            if not item.erased:
                refused[index] = Failure(item.problem, dead=True)
        elif suspicious and (failure := _refusal(runner, held, item)):
            refused[index] = failure
        else:
            tried.append(index)
            events.append(event)
    result = runner.run(events, attempt=held.attempt, keep=_keeper(held), stopping=stopping) if events else Result()
    done = tried[result.done] if result.done < len(events) else len(items)
    outcome = Outcome(
        items,
        done,
        skipped=result.skipped,
        discarded=sum(item.event is None and item.erased for item in items[:done]),
        failures={
            **{index: failure for index, failure in refused.items() if index < done},
            **{tried[index]: failure for index, failure in result.failures.items()},
        },
        deferred=result.deferred,
    )
    _let_go_of_the_first(outcome, runner)
    return outcome


def _without_the_forgotten(item: Item, forgotten: Marks) -> Item:
    """The item as if its event had been erased, if it is of a person who was forgotten."""
    event = item.event
    return item._replace(event=None) if event is not None and forgotten.hold(event) else item


def _refusal(runner: Runner, held: Claim, item: Item) -> Failure | None:
    """Why an event is not even tried: it kills, or it may have arrived already and must not again."""
    delivery = item.delivery
    if delivery.kills >= DEADLY_KILLS and item.position == delivery.done:
        return DEADLY
    if held.interrupted and delivery.pk in held.interrupted and not runner.judge.resends_uncertain:
        return INTERRUPTED
    return None


def _keeper(held: Claim) -> Callable[[], None]:
    """Keeps the lease while single events are delivered: a statement only when half of it is over."""
    begun = time.monotonic()

    def keep() -> None:
        nonlocal begun
        if time.monotonic() - begun > held.lease / 2:
            held.keep()
            begun = time.monotonic()

    return keep


def _let_go_of_the_first(outcome: Outcome, runner: Runner) -> None:
    """Give the event that others wait behind a delivery of its own, once it has failed often enough.

    A wait that the receiver asked for counts as no attempt, so it is let go at once.
    """
    failure = outcome.deferred
    if failure is None or not runner.one_by_one:
        return
    first = outcome.items[outcome.done]
    often = first.delivery.attempts >= HOLDS_UP or failure.retry_after is not None
    if often and first.position + 1 < first.delivery.n:
        outcome.failures[outcome.done] = failure
        outcome.done += 1
