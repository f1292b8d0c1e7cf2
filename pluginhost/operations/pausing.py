"""Pauses of lanes, and what is known of each lane at one glance.

A lane that is paused claims nothing more; what a worker holds when the pause begins
is finished. Events are accepted as ever, and wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import connections, transaction
from django.db.models import F, Min, Q, Sum
from django.db.models.functions import Coalesce, Now

from pluginhost.db import take_write_lock, upsert
from pluginhost.delivery import accounts
from pluginhost.models import Delivery, Envelope, Lane

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

#: ``Lane.paused_because`` holds so much.
MAX_BECAUSE = 200


@dataclass(frozen=True)
class LaneView:
    """One lane. All numbers are of events."""

    lane: str
    enabled: bool
    """Whether an enabled alias has this lane; the events of others wait."""
    paused_at: datetime | None
    paused_because: str
    trouble: str
    trouble_at: datetime | None
    accepted: int
    delivered: int
    skipped: int
    waiting: int
    """Also what workers hold, and what lies in envelopes that no worker has taken."""
    dead: int
    discarded: int
    balances: bool
    oldest_waiting: datetime | None
    """When the oldest event that waits was accepted."""
    next_due: datetime | None
    """When the next delivery that no worker holds may be tried; it may be past."""
    in_hand: int
    """What workers hold right now."""


def pause(lane: str, using: str, because: str = "") -> None:
    """Let a lane deliver nothing until it is resumed. A lane that is paused already stays so since then."""
    row = Lane(name=lane, paused_because=because.replace("\0", "")[:MAX_BECAUSE])
    with transaction.atomic(using):
        take_write_lock(connections[using], Lane)
        # Locks a row that is there: a worker whose lane works again may be about to delete it.
        upsert(row, "paused_because", using=using)
        Lane.objects.using(using).filter(name=lane).update(paused_at=Coalesce(F("paused_at"), Now()))


def resume(lane: str, using: str) -> None:
    """Let a lane deliver again."""
    rows = Lane.objects.using(using).filter(name=lane)
    with transaction.atomic(using):
        take_write_lock(connections[using], Lane)
        rows.update(paused_at=None, paused_because="")
        rows.filter(paused_at=None, trouble="").delete()


def paused(using: str) -> dict[str, Lane]:
    """The lanes that are paused."""
    return {row.name: row for row in Lane.objects.using(using).filter(paused_at__isnull=False).order_by("name")}


def overview(using: str) -> list[LaneView]:
    """All lanes: those of enabled aliases in their order, then those that only have rows."""
    from pluginhost.registry import load_registry

    enabled = list(load_registry().runners)
    counts = accounts.read(using)
    rows = {row.name: row for row in Lane.objects.using(using)}
    oldest, next_due, in_hand = _times(using)
    others = sorted({*counts, *rows} - set(enabled))
    return [
        LaneView(
            lane=lane,
            enabled=lane in enabled,
            paused_at=row.paused_at,
            paused_because=row.paused_because,
            trouble=row.trouble,
            trouble_at=row.trouble_at,
            **account,
            balances=accounts.balances(account),
            oldest_waiting=oldest.get(lane),
            next_due=next_due.get(lane),
            in_hand=in_hand.get(lane, 0),
        )
        for lane in [*enabled, *others]
        for row in [rows.get(lane) or Lane(name=lane)]
        for account in [counts.get(lane) or dict.fromkeys(accounts.OUTCOMES, 0)]
    ]


def _times(using: str) -> tuple[dict[str, datetime], dict[str, datetime], dict[str, int]]:
    """By lane: when the oldest waiting event was accepted, when the next may be tried, how many are in hand."""
    waiting = Delivery.objects.using(using).filter(state=Delivery.State.WAITING).order_by()
    held = Q(token__isnull=False, due_at__gt=Now())
    found = waiting.values_list("lane").annotate(
        first=Min("created"), due=Min("due_at", filter=~held), held=Sum(F("n") - F("done"), filter=held)
    )
    oldest: dict[str, datetime] = {}
    next_due: dict[str, datetime] = {}
    in_hand: dict[str, int] = {}
    for lane, created, due, n in found:
        oldest[lane] = created
        in_hand[lane] = n or 0
        if due is not None:
            next_due[lane] = due
    fresh: Iterable[tuple[str, datetime]] = (
        Envelope.objects.using(using).order_by().values_list("lanes").annotate(first=Min("created"))
    )
    for names, created in fresh:
        for lane in names.split(","):
            oldest[lane] = min(created, oldest.get(lane, created))
    return oldest, next_due, in_hand
