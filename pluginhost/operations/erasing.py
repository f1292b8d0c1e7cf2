"""Erases a person's events where they are at rest: in envelopes, in chunks, in deliveries of their own.

Everything is done some rows at a time, in transactions of their own with their
accounts. From an envelope the events are taken out. In a chunk, of which several
lanes know places, each is overwritten in its place, and every lane counts it as
discarded when it comes there. A delivery of its own is deleted, dead or waiting,
unless a worker holds it right now.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from django.db import connections, transaction
from django.db.models import Max, Q
from django.db.models.functions import Now

from pluginhost.db import take_write_lock
from pluginhost.delivery import accounts
from pluginhost.delivery.envelopes import ERASED, UNREADABLE, VERSION, join, unpack
from pluginhost.delivery.marks import concerns, keys_in, keys_of
from pluginhost.delivery.news import FORGOTTEN, tell_discarded
from pluginhost.delivery.settling import sweep_chunks
from pluginhost.models import Chunk, Delivery, Envelope
from pluginhost.operations.reasons import strike
from pluginhost.operations.steps import tried_again

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from django.db.models import QuerySet

    from pluginhost.delivery.envelopes import Stored
    from pluginhost.delivery.marks import Key, Marks
    from pluginhost.plugin import Person

#: Payloads that are in memory at a time; those of chunks and envelopes are of up to 1 MiB.
LARGE, SMALL = 10, 200
#: The problem of a payload that a newer version of the host has written.
NEWER = "of a newer version"
#: ``Delivery.lane`` holds so much of a name.
MAX_LANE = 63


class Unreadable(NamedTuple):
    """A payload of which nobody knows whether it has something of the person."""

    table: str
    """``envelope``, ``chunk`` or ``delivery``."""
    id: int
    lanes: tuple[str, ...]
    problem: str


@dataclass
class Found:
    """What was found of a person, and erased unless it was only looked for. Counts are of events."""

    envelopes: int = 0
    chunks: int = 0
    """Erased in their places. Each lane that still owes them counts them as discarded when it comes there."""
    waiting: int = 0
    """In deliveries of their own, to be tried again."""
    dead: int = 0
    in_hand: int = 0
    """Deliveries of their own that a worker holds right now."""
    unreadable: list[Unreadable] = field(default_factory=list)
    others: set[Key] = field(default_factory=set)
    """Other ids of these events."""

    @property
    def events(self) -> int:
        return self.envelopes + self.chunks + self.waiting + self.dead

    def add(self, later: Found) -> None:
        """Count what a later pass has found too; what is left is what that pass has left over."""
        for name in ("envelopes", "chunks", "waiting", "dead"):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        self.in_hand, self.unreadable = later.in_hand, later.unreadable
        self.others |= later.others


class _Who(msgspec.Struct):
    """What says whose an event is, also of one that can't be read as a whole."""

    user_id: Any = None
    anonymous_id: Any = None
    previous_id: Any = None
    visitor_ids: Any = None
    timestamp: Any = None

    def keys(self) -> set[Key]:
        visitor_ids = self.visitor_ids if isinstance(self.visitor_ids, dict) else {}
        return set(
            keys_in(
                _text(self.user_id),
                _text(self.anonymous_id),
                _text(self.previous_id),
                {name: id_ for name, id_ in visitor_ids.items() if isinstance(id_, str)},
            )
        )


def _text(value: Any) -> str | None:
    """An id as text. No version of the host writes a number, and no lane reads it, but it is the same person."""
    return value if isinstance(value, str) else str(value) if type(value) is int else None


def _written(id_: str) -> set[bytes]:
    """How an id may stand in a damaged payload: as JSON, with or without escapes, or as JSON within JSON.

    The last is what becomes of a message of the broker that is damaged.
    """
    forms = {json.dumps(id_), json.dumps(id_, ensure_ascii=False)}
    return {form.encode() for form in forms | {json.dumps(form)[1:-1] for form in forms}}


class _Row(NamedTuple):
    """What is needed of a row with a payload."""

    table: str
    id: int
    version: int
    lanes: tuple[str, ...]
    n: int
    done: int
    payload: bytes
    dead: bool = False


class Eraser:
    """Looks for a person's events on one database, and erases them if it is given marks of the person.

    Without marks it only looks, and finds everything of the person. With marks it
    leaves what happened after them: somebody who comes back is tracked again.
    """

    def __init__(self, person: Person, using: str, marks: Marks | None = None) -> None:
        self.using = using
        self._keys = frozenset(keys_of(person))
        self._until = {key: at for key in self._keys if (at := marks.at(key))} if marks else {}
        self._erases = marks is not None
        self._now = dt.datetime.now(dt.UTC)
        self._traces: set[bytes] = set()
        for _, id_ in self._keys:
            with suppress(UnicodeEncodeError):  # no payload has what is no Unicode
                self._traces |= _written(id_)

    def go(self) -> Found:
        """One pass through the tables, in the order in which events wander through them."""
        found = Found()
        if self._erases:
            sweep_chunks(self.using)
        for page in self._pages(Envelope.objects.using(self.using), LARGE, _envelopes):
            self._take_out(page, found)
        for page in self._pages(Chunk.objects.using(self.using), LARGE, _chunks):
            for row in page:
                self._overwrite(row, found)
        self.deliveries(found)
        if self._erases:
            strike((id_ for _, id_ in self._keys), self.using)
        return found

    def deliveries(self, found: Found) -> None:
        """The last part of a pass: deliveries with a payload of their own."""
        for page in self._pages(Delivery.objects.using(self.using).filter(chunk=None), SMALL, _deliveries):
            self._delete(page, found)

    # --- whose it is ---

    def _theirs(self, stored: Sequence[Stored], found: Found) -> set[int]:
        """The places of the person's events from before the mark; notes the other ids that they have."""
        return {place for place, one in enumerate(stored) if self._is_theirs(one, found)}

    def _is_theirs(self, stored: Stored, found: Found) -> bool:
        if stored.erased:
            return False
        event = stored.event
        if event is not None:
            who = _Who(event.user_id, event.anonymous_id, event.previous_id, event.visitor_ids, event.timestamp)
        else:
            try:
                who = msgspec.json.decode(stored.raw, type=_Who)
            except UNREADABLE:
                return self._names(stored.raw)
        keys = who.keys()
        if not any(self._concerns(key, who.timestamp) for key in keys & self._keys):
            return False
        own = {id_ for _, id_ in self._keys}
        found.others |= {key for key in keys if key[1] not in own}
        return True

    def _concerns(self, key: Key, timestamp: Any) -> bool:
        """Whether a mark concerns it. So it does if the time can't be read, or is still to come."""
        until = self._until.get(key)
        if until is None or not isinstance(timestamp, dt.datetime):
            return True
        return concerns(until, timestamp) or timestamp > self._now

    def _read(self, row: _Row, found: Found) -> list[Stored]:
        """The events of a payload; none if it can't be read, and a note of it if it may have some of the person."""
        problem = NEWER
        if row.version <= VERSION:
            try:
                return unpack(row.version, row.payload)
            except ValueError as error:
                if not self._names(row.payload):
                    return []
                problem = str(error)
        found.unreadable.append(Unreadable(row.table, row.id, row.lanes, problem))
        return []

    def _names(self, raw: bytes) -> bool:
        """Whether one of the ids stands in bytes that can't be read."""
        return any(trace in raw for trace in self._traces)

    def _pages(self, rows: QuerySet[Any], size: int, read: Any) -> Iterator[list[_Row]]:
        last = 0
        # What comes meanwhile has met the mark, or its lanes will; to go after it might never end.
        there = rows.filter(id__lte=rows.aggregate(end=Max("id"))["end"] or 0)
        while ids := list(there.filter(id__gt=last).order_by("id").values_list("id", flat=True)[:size]):
            last = ids[-1]
            yield read(rows.filter(id__in=ids).order_by("id"))

    # --- envelopes ---

    def _take_out(self, page: Sequence[_Row], found: Found) -> None:
        here = {row.id: len(theirs) for row in page if (theirs := self._theirs(self._read(row, found), found))}
        if self._erases and here:
            found.envelopes += tried_again(partial(self._take_out_of, list(here)), self.using)
        else:
            found.envelopes += sum(here.values())

    def _take_out_of(self, ids: Sequence[int]) -> int:
        """Write envelopes without the person's events. What intake has taken meanwhile is in chunks."""
        total = 0
        lanes: Counter[str] = Counter()
        with transaction.atomic(self.using):
            take_write_lock(connections[self.using], Envelope)
            rows = Envelope.objects.using(self.using).filter(id__in=ids)
            for row in _envelopes(rows.order_by("id").select_for_update()):
                stored = self._read(row, Found())
                theirs = self._theirs(stored, Found())
                total += len(theirs)
                if len(stored) != row.n:  # it is dead in any case, with as many events as it says
                    rows.filter(id=row.id).update(payload=_overwritten(stored, theirs))
                    continue
                left = [one.raw for place, one in enumerate(stored) if place not in theirs]
                if left:
                    rows.filter(id=row.id).update(n=len(left), payload=join(left))
                else:
                    rows.filter(id=row.id).delete()
                lanes.update(dict.fromkeys(row.lanes, len(theirs)))
            # Until now they counted as accepted because they were here.
            accounts.add({(lane, outcome): n for lane, n in lanes.items() for outcome in _TAKEN_OUT}, self.using)
            self._tell_after_commit(lanes)
        return total

    # --- chunks ---

    def _overwrite(self, row: _Row, found: Found) -> None:
        theirs = self._theirs(self._read(row, found), found)
        if self._erases and theirs:
            found.chunks += tried_again(partial(self._overwrite_in, row.id), self.using)
        else:
            found.chunks += len(theirs)

    def _overwrite_in(self, id_: int) -> int:
        """Overwrite the person's events in a chunk.

        Its deliveries are locked first: a claim that has read the chunk is then
        committed, and so can be waited for.
        """
        with transaction.atomic(self.using):
            take_write_lock(connections[self.using], Chunk)
            deliveries = Delivery.objects.using(self.using)
            ids = list(deliveries.filter(chunk_id=id_).values_list("id", flat=True))
            list(deliveries.filter(id__in=ids).order_by("id").select_for_update().values_list("id"))
            chunks = Chunk.objects.using(self.using).filter(id=id_)
            for row in _chunks(chunks.select_for_update()):
                stored = self._read(row, Found())
                theirs = self._theirs(stored, Found())
                chunks.update(payload=_overwritten(stored, theirs))
                return len(theirs)
        return 0

    # --- deliveries with a payload of their own ---

    def _delete(self, page: Sequence[_Row], found: Found) -> None:
        here = [row for row in page if self._theirs(self._read(row, found), found)]
        if not here:
            return
        counts: Mapping[bool, int]
        if self._erases:
            counts, held = tried_again(partial(self._delete_those, [row.id for row in here]), self.using)
            found.in_hand += held
        else:
            counts = _unfinished(here)
        found.dead += counts[True]
        found.waiting += counts[False]

    def _delete_those(self, ids: Sequence[int]) -> tuple[Mapping[bool, int], int]:
        """Delete what no worker holds. Returns the events that were dead (True) or waiting, and how many are held."""
        rows = Delivery.objects.using(self.using).filter(id__in=ids)
        gone: list[_Row] = []
        with transaction.atomic(self.using):
            take_write_lock(connections[self.using], Delivery)
            at_rest = rows.filter(Q(token=None) | Q(due_at__lte=Now()))
            for row in _deliveries(at_rest.order_by("id").select_for_update()):
                stored = self._read(row, Found())
                theirs = self._theirs(stored, Found())
                if theirs.issuperset(range(row.done, len(stored))):
                    gone.append(row)
                else:  # of several events, some are others'
                    rows.filter(id=row.id).update(payload=_overwritten(stored, theirs))
            rows.filter(id__in=[row.id for row in gone]).delete()
            lanes: Counter[str] = Counter()
            for row in gone:
                lanes[row.lanes[0]] += row.n - row.done
            accounts.add({(lane, "discarded"): n for lane, n in lanes.items()}, self.using)
            self._tell_after_commit(lanes)
        return _unfinished(gone), rows.filter(token__isnull=False, due_at__gt=Now()).count()

    def _tell_after_commit(self, lanes: Mapping[str, int]) -> None:
        transaction.on_commit(partial(_tell, dict(lanes), self.using), using=self.using, robust=True)


_TAKEN_OUT = ("accepted", "discarded")


def _overwritten(stored: Sequence[Stored], theirs: set[int]) -> bytes:
    return join(ERASED if place in theirs else one.raw for place, one in enumerate(stored))


def _unfinished(rows: Sequence[_Row]) -> Mapping[bool, int]:
    counts = {True: 0, False: 0}
    for row in rows:
        counts[row.dead] += row.n - row.done
    return counts


def _tell(lanes: Mapping[str, int], using: str) -> None:
    for lane, n in lanes.items():
        if n:
            tell_discarded(lane, n, FORGOTTEN, using)


def _envelopes(rows: QuerySet[Envelope]) -> list[_Row]:
    return [
        _Row("envelope", id_, version, tuple(name[:MAX_LANE] for name in lanes.split(",")), n, 0, bytes(payload))
        for id_, version, lanes, n, payload in rows.values_list("id", "version", "lanes", "n", "payload")
    ]


def _chunks(rows: QuerySet[Chunk]) -> list[_Row]:
    """A chunk's version is that of its deliveries; one that has none any more is not read."""
    found = list(rows.values_list("id", "n", "payload"))
    versions: dict[int, int] = {}
    lanes: dict[int, list[str]] = defaultdict(list)
    deliveries = Delivery.objects.using(rows.db).filter(chunk_id__in=[id_ for id_, _, _ in found])
    for id_, version, lane in deliveries.order_by("lane").values_list("chunk_id", "version", "lane"):
        versions[id_] = version
        lanes[id_].append(lane)
    return [
        _Row("chunk", id_, versions[id_], tuple(lanes[id_]), n, 0, bytes(payload))
        for id_, n, payload in found
        if id_ in versions
    ]


def _deliveries(rows: QuerySet[Delivery]) -> list[_Row]:
    fields = rows.values_list("id", "version", "lane", "n", "done", "payload", "state")
    return [
        _Row("delivery", id_, version, (lane,), n, done, bytes(payload or b""), state == Delivery.State.DEAD)
        for id_, version, lane, n, done, payload, state in fields
    ]
