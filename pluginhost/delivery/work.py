"""One step of one lane: claim a batch, run it, write down what became of it."""

from __future__ import annotations

import logging
import time
from itertools import islice
from typing import TYPE_CHECKING

from pluginhost.delivery.lanes import LeaseLost, claim
from pluginhost.delivery.runner import Failure
from pluginhost.delivery.settling import Outcome, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pluginhost.delivery.lanes import Claim, Item
    from pluginhost.delivery.runner import Runner

logger = logging.getLogger("pluginhost.delivery")

#: An event that was first in its delivery at so many failures leaves it, so that it does not hold up the others.
HOLDS_UP = 3
INTERRUPTED = Failure("a worker died while it delivered this; whether it arrived is not known", dead=True)


def step(runner: Runner, using: str, stopping: Callable[[], bool] = lambda: False) -> Outcome | None:
    """Claim one batch or more and deliver it. Returns the last outcome, or None if nothing was due.

    Database errors are raised; the claim then lapses, and its events are delivered again.
    """
    held = claim(runner, using)
    if held is None:
        return None
    outcome = Outcome(held.items, 0)
    try:
        for items in _slices(held.items, runner.batch_size):
            outcome = _attempt(runner, held, items)
            settle(held, outcome, runner.plugin.lane)
            if outcome.deferred:
                return outcome
            held.interrupted = frozenset()
            if stopping():
                break
        held.release()
    except LeaseLost:
        logger.warning("plugin %s: the lease ran out, and others have taken over", runner.alias)
    return outcome


def _slices(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while items := list(islice(rest, size)):
        yield list(items)


def _attempt(runner: Runner, held: Claim, items: Sequence[Item]) -> Outcome:
    """Run what can be run, and say what became of each item."""
    refused = {index: failure for index, item in enumerate(items) if (failure := _refusal(runner, held, item))}
    tried = [index for index in range(len(items)) if index not in refused]
    events = [event for index in tried if (event := items[index].stored.event)]
    result = runner.run(events, attempt=held.attempt, keep=_keeper(held))
    done = tried[result.done] if result.deferred else len(items)
    outcome = Outcome(
        items,
        done,
        skipped=result.skipped,
        failures={
            **{index: failure for index, failure in refused.items() if index < done},
            **{tried[index]: failure for index, failure in result.failures.items()},
        },
        deferred=result.deferred,
    )
    _let_go_of_the_first(outcome, runner)
    return outcome


def _refusal(runner: Runner, held: Claim, item: Item) -> Failure | None:
    """Why an event is not even tried: it can't be read, or it may have arrived already and must not again."""
    if item.stored.event is None:
        return Failure(item.stored.problem, dead=True)
    if item.delivery.pk in held.interrupted and not runner.resends_uncertain:
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
    """Give the event that others wait behind a delivery of its own, once it has failed often enough."""
    if outcome.deferred is None or not runner.one_by_one:
        return
    first = outcome.items[outcome.done]
    if first.delivery.attempts >= HOLDS_UP and first.position + 1 < first.delivery.n:
        outcome.failures[outcome.done] = outcome.deferred
        outcome.done += 1
