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
from typing import TYPE_CHECKING, NamedTuple

from django.db import connections, transaction
from django.db.models import F, Max, Q, Sum
from django.db.models.functions import Now

from pluginhost.db import skip_locked, take_write_lock
from pluginhost.delivery import accounts
from pluginhost.delivery.envelopes import unpack
from pluginhost.delivery.news import FORGOTTEN, tell_discarded
from pluginhost.delivery.settling import sweep_chunks
from pluginhost.models import Delivery
from pluginhost.operations import fresh
from pluginhost.operations.reading import Letter as Letter
from pluginhost.operations.reading import read as read
from pluginhost.operations.steps import STEP, pages
from pluginhost.operations.steps import tried_again as tried_again

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from datetime import datetime

    from django.db.models import QuerySet

    from pluginhost.events import Event

#: ``Delivery.event_name`` holds so much of a name.
MAX_NAME = 200
#: Events a second that a replay is paced to, at least: a date that is too far away can't be stored.
SLOWEST = 0.001


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

    @property
    def is_backlog(self) -> bool:
        """Whether it is all that waits, so that envelopes which no worker has taken belong to it."""
        single = self.ids or self.message_ids or self.event is not None or self.reason or self.died_before
        return self.state == Delivery.State.WAITING and not single


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


def up_to_now(selection: Selection, using: str) -> Selection:
    """The same dead letters, without those that die from now on: for whoever asks first whether it is meant."""
    last = select(selection, using).aggregate(last=Max("due_at"))["last"]
    # SQLite keeps milliseconds.
    return selection if last is None else replace(selection, died_before=last + timedelta(milliseconds=1))


def count(selection: Selection, using: str) -> dict[str, int]:
    """Lane -> how many events of the selection it has."""
    counts: dict[str, int] = defaultdict(int)
    for part in _parts(selection):
        rows = select(part, using).order_by().values_list("lane").annotate(total=Sum(F("n") - F("done")))
        for lane, total in rows:
            counts[lane] += total
    if selection.is_backlog:
        for lane, n in fresh.count(fresh.accepted(using, selection.since, selection.until)).items():
            if not selection.lanes or lane in selection.lanes:
                counts[lane] += n
    return dict(sorted(counts.items()))


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
    if selection.is_backlog:
        envelopes = fresh.accepted(using, selection.since, selection.until)
        for lane in selection.lanes or sorted(fresh.count(envelopes)):
            for n in fresh.strike(lane, envelopes, using, reason):
                total += n
                progress(total)
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
        end = select(part, using).aggregate(end=Max("id"))["end"]
        if end is not None:
            yield from pages(select(part, using).filter(id__lte=end))


class _Pace(NamedTuple):
    """When what is sent again comes due."""

    rate: float | None
    begun: float
    """By the monotonic clock."""
    ahead: dict[str, int]
    """Lane -> events that come due before these."""


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
                before = pace.ahead.get(row.lane, 0) + replayed[row.lane]
                due[int(before / pace.rate) if pace.rate else 0].append(row.id)
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
        tell_discarded(lane, n, reason, using)
    sweep_chunks(using, chunk_ids)


def _of_forgotten_people(ids: Sequence[int], using: str) -> set[int]:
    """Those of these deliveries whose event is of somebody who has been forgotten since."""
    from pluginhost.delivery.marks import marks

    known = marks(using)
    if not known.last:  # nobody has ever been forgotten
        return set()
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
