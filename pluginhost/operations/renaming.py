"""An alias that has another name now: what its lane still owes, its accounts and its pause go to the new lane.

Each step moves deliveries together with as much of ``accepted``, and the end moves
what is left of the accounts, so both lanes balance at any moment. What a worker
holds is left alone, and moved by another run.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from django.db import connections, transaction
from django.db.models import F, Q, Sum
from django.db.models.functions import Now

from pluginhost.db import add_up, skip_locked, take_write_lock, upsert
from pluginhost.delivery import accounts
from pluginhost.delivery.news import tell_discarded
from pluginhost.delivery.settling import sweep_chunks
from pluginhost.models import Account, Delivery, Lane
from pluginhost.operations import fresh
from pluginhost.operations.steps import pages, tried_again

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import QuerySet

_KEY = ("lane", "day", "outcome")


class Shared(Exception):
    """Both lanes hold deliveries of the same events."""

    def __init__(self, n: int) -> None:
        super().__init__(f"both hold the same {n} events")
        self.n = n


class Renamed(NamedTuple):
    """What became of the events of the old lane."""

    moved: int
    """Waiting and dead events that the new lane has now."""
    discarded: int
    """Events that the new lane had already."""
    in_hand: int
    """Events that a worker holds. They stay: run it again when it is done."""


def rename(
    old: str, new: str, using: str, *, merge: bool = False, progress: Callable[[int], None] = lambda _: None
) -> Renamed:
    """Move what belongs to a lane. Raises ``Shared`` if both hold the same events.

    With ``merge``, these are delivered by the new lane alone, and discarded for the
    old one. ``progress`` is called after each step with the number of events so far.
    """
    if not merge and (n := _shared(old, new, using)):
        raise Shared(n)
    tried_again(partial(_move_pause, old, new, using), using)  # first: what is paused stays so
    discarded = sum(fresh.strike(old, fresh.naming(new, fresh.accepted(using)), using, _twice(new)))
    moved = fresh.rename(old, new, using)
    for page in pages(_movable(old, using)):
        step = tried_again(partial(_move_step, old, new, using, page), using)
        moved, discarded = moved + step[0], discarded + step[1]
        progress(moved + discarded)
    tried_again(partial(_move_accounts, old, new, using), using)
    return Renamed(moved, discarded, _owed(old, using))


def _twice(new: str) -> str:
    """The reason that receivers of ``events_discarded`` are told."""
    return f"{new} has them too"


def _shared(old: str, new: str, using: str) -> int:
    """How many events of the old lane the new one has too."""
    chunks = Delivery.objects.using(using).filter(lane=new, chunk__isnull=False).values("chunk")
    rows = Delivery.objects.using(using).filter(lane=old, chunk__in=chunks)
    envelopes = fresh.naming(new, fresh.naming(old, fresh.accepted(using)))
    return (rows.aggregate(n=Sum(F("n") - F("done")))["n"] or 0) + (envelopes.aggregate(total=Sum("n"))["total"] or 0)


def _movable(lane: str, using: str) -> QuerySet[Delivery]:
    """Deliveries that no worker holds right now."""
    return Delivery.objects.using(using).filter(Q(token=None) | Q(due_at__lte=Now()), lane=lane)


def _owed(lane: str, using: str) -> int:
    return Delivery.objects.using(using).filter(lane=lane).aggregate(n=Sum(F("n") - F("done")))["n"] or 0


def _move_pause(old: str, new: str, using: str) -> None:
    with transaction.atomic(using):
        take_write_lock(connections[using], Lane)
        rows = Lane.objects.using(using)
        # Locked: a worker whose lane works again may be about to delete one of them.
        both = {row.name: row for row in rows.filter(name__in=[old, new]).order_by("name").select_for_update()}
        if (was := both.get(old)) is None:
            return
        row, names = both.get(new) or Lane(name=new), []
        if was.paused_at and not row.paused_at:
            names += ["paused_at", "paused_because"]
        if was.trouble and not row.trouble:
            names += ["trouble", "trouble_at"]
        for name in names:
            setattr(row, name, getattr(was, name))
        if names:
            upsert(row, *names, using=using)
        rows.filter(name=old).delete()


def _move_step(old: str, new: str, using: str, ids: list[int]) -> tuple[int, int]:
    """Move these, and discard those whose chunk the new lane has too. Returns how many events of each."""
    with transaction.atomic(using):
        take_write_lock(connections[using], Delivery)
        rows = list(
            _movable(old, using)
            .filter(id__in=ids)
            .order_by("id")
            .select_for_update(skip_locked=skip_locked(connections[using]))
            .defer("payload")
        )
        chunks = [row.chunk_id for row in rows if row.chunk_id]
        both = set(Delivery.objects.using(using).filter(lane=new, chunk__in=chunks).values_list("chunk_id", flat=True))
        twice = [row for row in rows if row.chunk_id in both]
        once = [row for row in rows if row.chunk_id not in both]
        moved, discarded = (sum(row.n - row.done for row in some) for some in (once, twice))
        mine = Delivery.objects.using(using)
        mine.filter(id__in=[row.pk for row in once]).update(lane=new)
        # Whoever let its lease lapse can't finish it for the old lane any more; that it was held is still seen.
        mine.filter(id__in=[row.pk for row in once if row.token]).update(token=uuid4())
        mine.filter(id__in=[row.pk for row in twice]).delete()
        accounts.add(
            {(old, "accepted"): -moved, (new, "accepted"): moved, (old, "discarded"): discarded},
            using,
        )
    if discarded:
        tell_discarded(old, discarded, _twice(new), using)
    sweep_chunks(using, [row.chunk_id for row in twice if row.chunk_id])
    return moved, discarded


def _move_accounts(old: str, new: str, using: str) -> None:
    """Move the old lane's accounts, but for what it still owes."""
    today = dt.datetime.now(dt.UTC).date()
    # Others may count with the date of before or after midnight, and on clocks that differ.
    around = [today + dt.timedelta(days=n) for n in (-1, 0, 1)]
    keys = set(Account.objects.using(using).filter(lane=old).values_list("day", "outcome"))
    keys |= {(day, outcome) for day in around for outcome in Account.Outcome.values}
    nothing = [{"lane": lane, "day": day, "outcome": each, "n": 0} for lane in (old, new) for day, each in keys]
    with transaction.atomic(using):
        take_write_lock(connections[using], Account)
        # Whoever counts something for either lane meanwhile now waits for the end of this transaction. All
        # rows are locked here, in the order of their keys, as everybody locks them.
        add_up(Account, nothing, key=_KEY, add=("n",), using=using)
        rows = list(Account.objects.using(using).filter(lane=old).order_by("day", "outcome").select_for_update())
        moved: dict[tuple[dt.date, str], int] = defaultdict(int)
        for row in rows:
            moved[row.day, row.outcome] += row.n
        owed = _owed(old, using)
        moved[today, "accepted"] -= owed
        add_up(
            Account,
            [{"lane": new, "day": day, "outcome": outcome, "n": n} for (day, outcome), n in moved.items() if n],
            key=_KEY,
            add=("n",),
            using=using,
        )
        Account.objects.using(using).filter(id__in=[row.pk for row in rows]).delete()
        Account.objects.using(using).filter(lane=new, day__in={day for day, _ in keys}, n=0).delete()
        owes = [{"lane": old, "day": today, "outcome": "accepted", "n": owed}]
        add_up(Account, owes if owed else [], key=_KEY, add=("n",), using=using)
