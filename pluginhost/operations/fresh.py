"""Envelopes that no worker has taken yet, by lane: counted, given to another lane, taken from one.

Only the text of their lanes is changed, never the payload, so a newer version's
envelopes are no different. Locks are waited for: what a worker takes at this moment
is a delivery when its transaction ends, and whoever goes on to the deliveries finds it.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

from django.db import connections, transaction
from django.db.models import Max, Q, Sum

from pluginhost.db import take_write_lock
from pluginhost.delivery import accounts
from pluginhost.delivery.news import tell_discarded
from pluginhost.models import Envelope
from pluginhost.operations.steps import pages, tried_again

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from django.db.models import QuerySet


def accepted(using: str, since: datetime | None = None, until: datetime | None = None) -> QuerySet[Envelope]:
    """The envelopes of a time, without an order."""
    found = Envelope.objects.using(using).order_by()
    if since is not None:
        found = found.filter(created__gte=since)
    if until is not None:
        found = found.filter(created__lt=until)
    return found


def count(envelopes: QuerySet[Envelope]) -> dict[str, int]:
    """Lane -> events."""
    counts: dict[str, int] = defaultdict(int)
    for names, n in envelopes.values_list("lanes").annotate(total=Sum("n")):
        for lane in names.split(","):
            counts[lane] += n
    return dict(counts)


def naming(lane: str, envelopes: QuerySet[Envelope]) -> QuerySet[Envelope]:
    """Those for this lane, among others."""
    first, last, between = f"{lane},", f",{lane}", f",{lane},"
    alone = Q(lanes=lane)
    return envelopes.filter(alone | Q(lanes__startswith=first) | Q(lanes__endswith=last) | Q(lanes__contains=between))


def rename(old: str, new: str, using: str) -> int:
    """Give one lane's envelopes to another; one that is for both stays for the new lane once. Returns how many events.

    Accounts need no change: what lies in envelopes is counted from their text.
    """

    def change(lanes: list[str]) -> list[str]:
        return list(dict.fromkeys(new if lane == old else lane for lane in lanes))

    return sum(_change(old, accepted(using), using, change, lambda _: None))


def strike(lane: str, envelopes: QuerySet[Envelope], using: str, reason: str) -> Iterator[int]:
    """Take a lane from envelopes, and count their events as accepted and discarded. Yields their numbers."""

    def tally(n: int) -> None:
        accounts.add({(lane, "accepted"): n, (lane, "discarded"): n}, using)
        transaction.on_commit(partial(tell_discarded, lane, n, reason, using), using=using, robust=True)

    return _change(lane, envelopes, using, lambda lanes: [each for each in lanes if each != lane], tally)


def _change(
    lane: str,
    envelopes: QuerySet[Envelope],
    using: str,
    change: Callable[[list[str]], list[str]],
    tally: Callable[[int], None],
) -> Iterator[int]:
    """Change the lanes of all envelopes for this one, step by step; an envelope without lanes goes. Yields events."""
    found = naming(lane, envelopes)
    end = found.aggregate(end=Max("id"))["end"]
    for page in pages(found.filter(id__lte=end)) if end is not None else ():
        yield tried_again(partial(_step, lane, found.filter(id__in=page), using, change, tally), using)


def _step(
    lane: str,
    found: QuerySet[Envelope],
    using: str,
    change: Callable[[list[str]], list[str]],
    tally: Callable[[int], None],
) -> int:
    with transaction.atomic(using):
        take_write_lock(connections[using], Envelope)
        ids: dict[str, list[int]] = defaultdict(list)
        total = 0
        for id_, names, n in found.order_by("id").select_for_update().values_list("id", "lanes", "n"):
            lanes = names.split(",")
            if lane in lanes:  # to SQLite's LIKE another one is the same in capitals
                ids[",".join(change(lanes))].append(id_)
                total += n
        for names, same in ids.items():
            rows = Envelope.objects.using(using).filter(id__in=same)
            if names:
                rows.update(lanes=names)
            else:
                rows.delete()
        if total:
            tally(total)
    return total
