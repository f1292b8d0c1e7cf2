"""The ceiling of a backlog: with BACKLOG_LIMIT, what a full lane is sent beyond is discarded for this lane.

The new ones go, what waits stays: what waits is older, and a lane keeps its order.
Several workers that take envelopes at the same moment each see the same room, so
together they may exceed the limit by what they take.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING

from django.db.models import F, Sum

from pluginhost import signals
from pluginhost.delivery.envelopes import join, unpack
from pluginhost.delivery.news import tell_discarded
from pluginhost.models import Delivery

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pluginhost.delivery.intake import Row

logger = logging.getLogger("pluginhost.delivery")

#: The reason that receivers of ``events_discarded`` are told.
FULL = "the backlog is full"
#: A lane is full no longer when its backlog has fallen to this part of its limit: so much is said once.
OVER = 0.9

#: Database and lane, for each lane that this process has said to be full.
_full: set[tuple[str, str]] = set()


class Ceiling:
    """The room that the lanes have, as one transaction sees it."""

    def __init__(self, using: str, limits: dict[str, int], waiting: dict[str, int]) -> None:
        self.using = using
        self._limits = limits
        self._waiting = waiting
        self.discarded: dict[str, int] = defaultdict(int)
        """Lane -> events that go."""

    @classmethod
    def of(cls, lanes: Iterable[str], using: str) -> Ceiling:
        """What the settings and the database say of these lanes."""
        from pluginhost.registry import load_registry

        runners = load_registry().runners
        limits = {
            lane: limit
            for lane in set(lanes)
            if lane in runners and (limit := runners[lane].plugin.lane.BACKLOG_LIMIT) is not None
        }
        if not limits:
            return cls(using, {}, {})
        rows = Delivery.objects.using(using).filter(lane__in=limits, state=Delivery.State.WAITING).order_by()
        waiting = dict(rows.values_list("lane").annotate(total=Sum(F("n") - F("done"))))
        return cls(using, limits, {lane: waiting.get(lane, 0) for lane in limits})

    def shares(self, rows: Sequence[Row]) -> Iterable[Row]:
        """What of these envelopes the lanes have room for."""
        return chain.from_iterable(map(self._share, rows)) if self._limits else rows

    def _share(self, row: Row) -> Iterator[Row]:
        """An envelope for the lanes that have room for all of it; and what of it fits into one that has less."""
        lanes = row.lanes.split(",")
        if self._limits.keys().isdisjoint(lanes):
            yield row
            return
        rooms = {lane: self._room(lane, row.n) for lane in lanes}
        if whole := [lane for lane in lanes if rooms[lane] == row.n]:
            yield row._replace(lanes=",".join(whole))
        for lane in lanes:
            if 0 < rooms[lane] < row.n:
                if part := _first(row, rooms[lane]):
                    yield part._replace(lanes=lane)
                else:
                    rooms[lane] = 0
            if lane in self._limits:
                self._waiting[lane] += rooms[lane]
                self.discarded[lane] += row.n - rooms[lane]

    def _room(self, lane: str, n: int) -> int:
        """How many of so many events the lane takes."""
        return min(n, max(0, self._limits[lane] - self._waiting[lane])) if lane in self._limits else n

    def tell(self) -> None:
        """After the commit: say what went, and once that a lane is full, until it has room again."""
        for lane, limit in self._limits.items():
            key = (self.using, lane)
            if n := self.discarded.get(lane):
                if key not in _full:
                    _full.add(key)
                    logger.error("lane %s is full, and discards what is new: BACKLOG_LIMIT is %d", lane, limit)
                    signals.post(signals.backlog_full, lane=lane, limit=limit, using=self.using)
                tell_discarded(lane, n, FULL, self.using, send=signals.post)
            elif key in _full and self._waiting[lane] <= limit * OVER:
                _full.discard(key)
                logger.warning("lane %s has room again", lane)


def _first(row: Row, n: int) -> Row | None:
    """The first so many events of an envelope; None if it can't be read."""
    try:
        stored = unpack(row.version, row.payload)
    except ValueError:
        return None
    return row._replace(n=n, payload=join(one.raw for one in stored[:n])) if len(stored) == row.n else None
