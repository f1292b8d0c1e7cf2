"""The accounts of the lanes: accepted = delivered + skipped + waiting + dead + discarded."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from django.db.models import F, Sum, Value

from pluginhost.db import add_up
from pluginhost.models import Account, Delivery, Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OUTCOMES = ("accepted", "delivered", "skipped", "waiting", "dead", "discarded")


def add(counts: Mapping[tuple[str, str], int], using: str) -> None:
    """Add ``{(lane, outcome): n}``, as part of the transaction that makes it so."""
    day = dt.datetime.now(dt.UTC).date()
    rows = [{"lane": lane, "day": day, "outcome": outcome, "n": n} for (lane, outcome), n in counts.items() if n]
    if rows:
        add_up(Account, rows, key=("lane", "day", "outcome"), add=("n",), using=using)


def read(using: str) -> dict[str, dict[str, int]]:
    """Lane -> outcome -> events. Events in envelopes that no worker has taken yet count as accepted and waiting."""
    lanes: dict[str, dict[str, int]] = {}

    def put(lane: str, outcome: str, n: int) -> None:
        account = lanes.setdefault(lane, dict.fromkeys(OUTCOMES, 0))
        account[outcome] += n

    for names, outcome, n in _one_snapshot(using):
        if outcome != "fresh":
            put(names, outcome, n)
            continue
        for lane in names.split(","):
            put(lane, "accepted", n)
            put(lane, "waiting", n)
    return lanes


def _one_snapshot(using: str) -> Iterable[tuple[str, str, int]]:
    """All three tables in one statement: in several, a worker could move events from one to another in between."""
    stored = Account.objects.using(using).values_list("lane", "outcome").annotate(total=Sum("n"))
    owed = Delivery.objects.using(using).values_list("lane", "state").annotate(total=Sum(F("n") - F("done")))
    fresh = Envelope.objects.using(using).values_list("lanes", Value("fresh")).annotate(total=Sum("n"))
    rows: Iterable[tuple[str, str, int]] = stored.union(owed, fresh, all=True)
    return rows


def missing(account: Mapping[str, int]) -> int:
    """How many accepted events nothing accounts for; below 0 if more are accounted for than were accepted."""
    return account["accepted"] - sum(account[outcome] for outcome in OUTCOMES if outcome != "accepted")


def balances(account: Mapping[str, int]) -> bool:
    """Whether every accepted event is accounted for."""
    return missing(account) == 0
