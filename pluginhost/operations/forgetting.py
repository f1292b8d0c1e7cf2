"""Forgetting a person: in the outbox, in what workers have in hand, and in what each plugin has delivered.

The marks are committed before anything is deleted, so that what turns up of the
person later is not delivered. What is at rest is erased then. A worker that had
claimed events before may still deliver them, or write down that they failed, so it
is waited for. Only when nothing of the person is on its way any more is each plugin
asked to delete what its receiver has.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple
from uuid import uuid4

from django.db.models.functions import Now

from pluginhost.delivery.attempt import RAISED
from pluginhost.delivery.marks import Marks, mark, marks
from pluginhost.models import Delivery
from pluginhost.operations.erasing import Eraser, Found, Unreadable
from pluginhost.operations.steps import STEP, tried_again
from pluginhost.options import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from django.db.models import QuerySet

    from pluginhost.delivery.runner import Runner
    from pluginhost.plugin import Person

__all__ = ["Answer", "Found", "Marks", "Unreadable", "ask", "forget", "look", "mark", "marks", "sweep"]

#: Seconds between two looks whether workers still hold what they held, at first and at most.
POLL_FIRST, POLL_LAST = 0.05, 2.0
#: Seconds that workers are waited for, at most. A lease is over long before, unless a worker keeps it.
PATIENCE = 900.0


class Answer(NamedTuple):
    """What a plugin said when it was asked to forget."""

    alias: str
    outcome: Literal["done", "by hand", "failed"]
    sentence: str


@dataclass
class Forgetting:
    """What was found in the outbox, and what is left of it."""

    found: Found = field(default_factory=Found)
    still_held: int = 0
    """Deliveries that workers had claimed before the person was marked, and had not finished in time."""

    @property
    def complete(self) -> bool:
        """Whether nothing of the person is left in the outbox, as far as it can be read."""
        return not (self.still_held or self.found.in_hand or self.found.unreadable)


def look(person: Person, using: str) -> Found:
    """What the outbox has of a person right now. Changes nothing."""
    return Eraser(person, using).go()


def sweep(person: Person, using: str) -> Found:
    """Erase what is at rest of a marked person, once. What workers hold right now is counted, and stays."""
    return Eraser(person, using, marks(using)).go()


def forget(
    person: Person,
    using: str,
    *,
    patience: float = PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[str], None] = lambda _: None,
) -> Forgetting:
    """Mark a person, and erase them from the outbox on the database ``using``.

    Workers that hold something are waited for, ``patience`` seconds at most.
    ``progress`` is given sentences for whoever watches. May be repeated. Raises
    ``RuntimeError`` within a transaction: the marks have to be committed first.
    """
    eraser = Eraser(person, using, mark(person, using))
    done = Forgetting(eraser.go())
    # Who claims from here on has seen the marks, and reads chunks in which the person is erased.
    held = set(_in_hand(using).values_list("token", flat=True))
    for pause in _pauses(patience):
        done.still_held = _in_hand(using).filter(token__in=held).count() if held else 0
        if not done.still_held:
            tried_again(partial(_take_away, using), using)
            # What failed in a worker's hands meanwhile has become a delivery of its own.
            done.found.add(later := eraser.go())
            if not later.in_hand:
                break
        progress(f"waiting for workers to finish {done.still_held or done.found.in_hand} deliveries that they hold")
        sleep(pause)
    return done


def _in_hand(using: str) -> QuerySet[Delivery]:
    return Delivery.objects.using(using).filter(token__isnull=False, due_at__gt=Now())


def _take_away(using: str) -> None:
    """Take what workers did not finish within their lease away from them, as the next claim would.

    Also what lapsed before the mark: a worker that sleeps, and that nobody follows,
    would write down what it had read when it wakes.
    """
    lapsed = Delivery.objects.using(using).filter(token__isnull=False, due_at__lte=Now())
    ids = list(lapsed.values_list("id", flat=True))
    for start in range(0, len(ids), STEP):
        lapsed.filter(id__in=ids[start : start + STEP]).update(token=uuid4())


def _pauses(patience: float) -> Iterator[float]:
    """Seconds between two looks; so many altogether, and one look at least."""
    pause, waited = POLL_FIRST, 0.0
    while True:
        yield pause
        waited += pause
        if waited >= patience:
            return
        pause = min(pause * 2, POLL_LAST)


def ask(person: Person, runners: Mapping[str, Runner]) -> Iterator[Answer]:
    """Let each plugin delete what its receiver has of a person. Raises nothing of theirs.

    A plugin whose data is not personal is not asked. What was opened for this is closed again.
    """
    for runner in runners.values():
        if runner.plugin.personal_data:
            yield _ask(person, runner)


def _ask(person: Person, runner: Runner) -> Answer:
    was_open = runner.is_open
    try:
        sentence = runner.forget(person)
    except NotImplementedError as error:
        return Answer(runner.alias, "by hand", redacted(str(error), runner.plugin.options))
    except RAISED as error:
        return Answer(runner.alias, "failed", runner.judge.describe(error))
    finally:
        if not was_open:
            runner.close()
    return Answer(runner.alias, "done", redacted(str(sentence), runner.plugin.options))
