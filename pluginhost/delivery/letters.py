"""Dead letters, and what else waits in the outbox: found, read, sent again, discarded.

Everything is done in steps of some hundred rows, each a transaction of its own with
its accounts, so that workers go on beside it and a process that is killed leaves
accounts that balance. What a worker holds right now is never touched.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec
from django.db import OperationalError, connections, transaction
from django.db.models import F, Max, Q, Sum
from django.db.models.functions import Now

from pluginhost import signals
from pluginhost.db import skip_locked, take_write_lock
from pluginhost.delivery import accounts
from pluginhost.delivery.envelopes import unpack
from pluginhost.delivery.settling import sweep_chunks
from pluginhost.models import Chunk, Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from datetime import datetime

    from django.db.models import QuerySet

    from pluginhost.delivery.envelopes import Stored
    from pluginhost.events import Event

T = TypeVar("T")

#: Rows of one transaction, at most.
STEP = 500
#: Deliveries whose payloads are in memory at a time.
READ_AT_ONCE = 100
#: Seconds between two tries of a step that the database refused.
PAUSES = (0.1, 0.5, 2.0)
#: Bytes of an unreadable payload that are shown.
SHOWN_BYTES = 200
#: ``Delivery.event_name`` holds so much of a name.
MAX_NAME = 200

FORGOTTEN = "forgotten"


@dataclass(frozen=True)
class Selection:
    """Which deliveries; a field that is left empty excludes none."""

    lanes: tuple[str, ...] = ()
    message_ids: tuple[str, ...] = ()
    event: str | None = None
    """The name of the event. Known of dead letters, and of events that failed and wait on their own."""
    reason: str | None = None
    """A part of the reason."""
    since: datetime | None = None
    """Accepted at that time or later."""
    until: datetime | None = None
    """Accepted before."""
    state: str = Delivery.State.DEAD.value
    """``dead``; or ``waiting``, without what a worker holds right now."""
    ids: tuple[int, ...] = ()
    """Primary keys of deliveries."""
    died_before: datetime | None = None
    """Given up before that time."""


class Letter(NamedTuple):
    """One dead event, or one that waits."""

    lane: str
    message_id: str
    event_name: str
    reason: str
    attempts: int
    created: datetime
    payload: dict[str, Any] | str
    """The event as it was stored; a description of the bytes if they can't be read."""
    delivery_id: int
    n: int
    """How many events: 1, or as many as an unreadable payload is said to have."""
    due_at: datetime
    """Of a dead letter: about when it died."""


class Replayed(NamedTuple):
    """So many events are sent again, and so many were discarded, because their people have been forgotten."""

    replayed: int
    forgotten: int


def select(selection: Selection, using: str) -> QuerySet[Delivery]:
    """The deliveries of a selection; none that a worker holds right now."""
    found = Delivery.objects.using(using).filter(state=selection.state)
    if selection.state == Delivery.State.WAITING:
        found = found.filter(Q(token=None) | Q(due_at__lte=Now()))
    if selection.lanes:
        found = found.filter(lane__in=selection.lanes)
    if selection.ids:
        found = found.filter(id__in=selection.ids)
    if selection.message_ids:
        found = found.filter(message_id__in=selection.message_ids)
    if selection.event is not None:
        # Both: to MySQL's and MariaDB's ``=`` "Signed up" is "signed up", to SQLite's ``LIKE`` likewise.
        name = selection.event[:MAX_NAME]
        found = found.filter(event_name=name, event_name__startswith=name)
    if selection.reason:
        found = found.filter(reason__icontains=selection.reason)
    if selection.since is not None:
        found = found.filter(created__gte=selection.since)
    if selection.until is not None:
        found = found.filter(created__lt=selection.until)
    if selection.died_before is not None:
        found = found.filter(due_at__lt=selection.died_before)  # set when it died; nothing moves it after that
    return found


def count(selection: Selection, using: str) -> dict[str, int]:
    """Lane -> how many events of the selection it has."""
    counts: dict[str, int] = defaultdict(int)
    for part in _parts(selection):
        rows = select(part, using).order_by().values_list("lane").annotate(total=Sum(F("n") - F("done")))
        for lane, total in rows:
            counts[lane] += total
    return dict(sorted(counts.items()))


def read(queryset: QuerySet[Delivery]) -> Iterator[Letter]:
    """Each unfinished event of these deliveries, in the order of the query; few payloads are in memory at a time."""
    using = queryset.db
    ids = list(queryset.values_list("id", flat=True))
    for start in range(0, len(ids), READ_AT_ONCE):
        page = ids[start : start + READ_AT_ONCE]
        rows = Delivery.objects.using(using).in_bulk(page)
        chunk_ids = {row.chunk_id for row in rows.values() if row.chunk_id}
        chunks = dict(Chunk.objects.using(using).filter(id__in=chunk_ids).values_list("id", "payload"))
        for id_ in page:
            if row := rows.get(id_):  # else it has been finished since
                payload = chunks.get(row.chunk_id) if row.chunk_id else row.payload
                yield from _letters(row, bytes(payload or b""))


def replay(
    selection: Selection, using: str, *, rate: float | None = None, progress: Callable[[int], None] = lambda _: None
) -> int:
    """Let dead letters wait again, as if they had never been tried; message ids stay. Returns how many events.

    With a ``rate``, so many events a second come due in each lane, by the second.
    ``progress`` is called after each step with the number of events so far.
    Events of people who have been forgotten since are discarded.
    """
    return replay_or_forget(selection, using, rate=rate, progress=progress).replayed


def replay_or_forget(
    selection: Selection, using: str, *, rate: float | None = None, progress: Callable[[int], None] = lambda _: None
) -> Replayed:
    """The same; says both what is sent again and what was discarded, because its people have been forgotten."""
    begun = time.monotonic()
    ahead: dict[str, int] = defaultdict(int)
    forgotten = 0
    for page in _pages(selection, using):
        step = tried_again(partial(_replay_step, selection, using, page, _Pace(rate, begun, dict(ahead))), using)
        for lane, n in step.replayed.items():
            ahead[lane] += n
        forgotten += step.forgotten
        progress(sum(ahead.values()))
    return Replayed(sum(ahead.values()), forgotten)


def discard(selection: Selection, using: str, *, reason: str, progress: Callable[[int], None] = lambda _: None) -> int:
    """Delete deliveries, and count their unfinished events as discarded. Returns how many events.

    ``reason`` is told to the receivers of ``events_discarded``; ``progress`` is
    called after each step with the number of events so far.
    """
    total = 0
    for page in _pages(selection, using):
        total += tried_again(partial(_discard_step, selection, using, page, reason), using)
        progress(total)
    return total


def _parts(selection: Selection) -> Iterator[Selection]:
    """The same selection in parts that no database has too many arguments for."""
    if not selection.ids:
        yield selection
        return
    ids = sorted(set(selection.ids))
    for start in range(0, len(ids), STEP):
        yield replace(selection, ids=tuple(ids[start : start + STEP]))


def _pages(selection: Selection, using: str) -> Iterator[list[int]]:
    """The ids of what is selected as it begins, in their order; what fails again meanwhile is not met twice."""
    for part in _parts(selection):
        found = select(part, using).order_by("id").values_list("id", flat=True)
        end = select(part, using).aggregate(end=Max("id"))["end"]
        last = 0
        while end is not None and (page := list(found.filter(id__gt=last, id__lte=end)[:STEP])):
            yield page
            last = page[-1]


def tried_again(act: Callable[[], T], using: str) -> T:
    """Take one step. A database that refuses, such as one that ends a deadlock, is asked again.

    Not within a transaction that is not ours: what it has done so far may be undone.
    """
    for pause in PAUSES:
        try:
            return act()
        except OperationalError:
            if connections[using].in_atomic_block:
                raise
            connections[using].close_if_unusable_or_obsolete()
            time.sleep(pause)
    return act()


class _Pace(NamedTuple):
    """When what is sent again comes due."""

    rate: float | None
    begun: float
    """By the monotonic clock."""
    ahead: dict[str, int]
    """Lane -> events that come due before."""

    def seconds(self, lane: str) -> int:
        """From the beginning until the next event of a lane comes due."""
        return 0 if self.rate is None else int(self.ahead.get(lane, 0) / self.rate)


class _Step(NamedTuple):
    replayed: dict[str, int]
    """Lane -> events."""
    forgotten: int


class _Row(NamedTuple):
    """What is needed of a delivery."""

    id: int
    lane: str
    unfinished: int
    chunk_id: int | None


def _locked(selection: Selection, using: str, ids: Sequence[int]) -> list[_Row]:
    """Those of these deliveries that are still selected, held until the transaction ends."""
    rows = (
        select(replace(selection, ids=tuple(ids)), using)
        .order_by("id")
        .select_for_update(skip_locked=skip_locked(connections[using]))
        .values_list("id", "lane", "n", "done", "chunk_id")
    )
    return [_Row(id_, lane, n - done, chunk_id) for id_, lane, n, done, chunk_id in rows]


def _replay_step(selection: Selection, using: str, ids: Sequence[int], pace: _Pace) -> _Step:
    with transaction.atomic(using):
        take_write_lock(connections[using], Delivery)
        rows = _locked(selection, using, ids)
        gone = _of_forgotten_people([row.id for row in rows], using)
        _delete([row for row in rows if row.id in gone], using, FORGOTTEN)
        due: dict[int, list[int]] = defaultdict(list)
        replayed: dict[str, int] = defaultdict(int)
        for row in rows:
            if row.id not in gone:
                due[pace.seconds(row.lane)].append(row.id)
                pace.ahead[row.lane] = pace.ahead.get(row.lane, 0) + row.unfinished
                replayed[row.lane] += row.unfinished
        elapsed = time.monotonic() - pace.begun
        for seconds, at_once in due.items():
            Delivery.objects.using(using).filter(id__in=at_once).update(
                state=Delivery.State.WAITING,
                due_at=Now() + timedelta(seconds=max(0.0, seconds - elapsed)),
                attempts=0,
                kills=0,
                token=None,
                reason="",
            )
    return _Step(replayed, sum(row.unfinished for row in rows if row.id in gone))


def _discard_step(selection: Selection, using: str, ids: Sequence[int], reason: str) -> int:
    with transaction.atomic(using):
        take_write_lock(connections[using], Delivery)
        rows = _locked(selection, using, ids)
        _delete(rows, using, reason)
    return sum(row.unfinished for row in rows)


def _delete(rows: Sequence[_Row], using: str, reason: str) -> None:
    """Delete them and count it, within a transaction; tell of it after the commit."""
    if not rows:
        return
    lanes: dict[str, int] = defaultdict(int)
    for row in rows:
        lanes[row.lane] += row.unfinished
    Delivery.objects.using(using).filter(id__in=[row.id for row in rows]).delete()
    accounts.add({(lane, "discarded"): n for lane, n in lanes.items()}, using)
    chunk_ids = {row.chunk_id for row in rows if row.chunk_id}
    transaction.on_commit(partial(_after, dict(lanes), chunk_ids, reason, using), using=using, robust=True)


def _after(lanes: dict[str, int], chunk_ids: Collection[int], reason: str, using: str) -> None:
    for lane, n in lanes.items():
        signals.announce(signals.events_discarded, lane=lane, n=n, reason=reason, using=using)
    sweep_chunks(using, chunk_ids)


def _of_forgotten_people(ids: Sequence[int], using: str) -> set[int]:
    """Those of these deliveries whose event is of somebody who has been forgotten since."""
    try:
        from pluginhost.delivery.forgetting import marks
    except ImportError:
        return set()
    known = marks(using)
    payloads = Delivery.objects.using(using).filter(id__in=ids, n=1, payload__isnull=False)
    return {
        id_
        for id_, version, payload in payloads.values_list("id", "version", "payload")
        if (event := _event(version, bytes(payload or b""))) is not None and known.hold(event)
    }


def _event(version: int, payload: bytes) -> Event | None:
    """The only event of a payload; None if it can't be read."""
    try:
        stored = unpack(version, payload)
    except ValueError:
        return None
    return stored[0].event if stored else None


def _letters(row: Delivery, payload: bytes) -> Iterator[Letter]:
    """A letter for each unfinished event; one for all of them if the payload can't be read."""
    common: dict[str, Any] = {"lane": row.lane, "reason": row.reason, "attempts": row.attempts, "created": row.created}
    common |= {"delivery_id": row.pk, "due_at": row.due_at}
    try:
        stored = unpack(row.version, payload)
    except ValueError as error:
        stored, problem = [], str(error)
    else:
        problem = f"the payload has {len(stored)} events instead of {row.n}"
    if len(stored) != row.n:
        described = f"{problem}; {_shown(payload)}"
        n = row.n - row.done
        yield Letter(message_id=row.message_id, event_name=row.event_name, payload=described, n=n, **common)
        return
    for one in stored[row.done :]:
        message_id, name = (one.event.message_id, one.event.name) if one.event else (row.message_id, row.event_name)
        yield Letter(message_id=message_id, event_name=name, payload=_decoded(one), n=1, **common)


def _decoded(stored: Stored) -> dict[str, Any] | str:
    try:
        decoded = msgspec.json.decode(stored.raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        decoded = None
    return decoded if isinstance(decoded, dict) else f"{stored.problem}; {_shown(stored.raw)}"


def _shown(payload: bytes) -> str:
    more = f" and {len(payload) - SHOWN_BYTES} more" if len(payload) > SHOWN_BYTES else ""
    return f"{len(payload)} bytes: {payload[:SHOWN_BYTES]!r}{more}"
