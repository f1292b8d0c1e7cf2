"""The world of the outbox's state machine: what is there, what should be, and what a step of a lane may come to."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

from django.db.models import F
from hypothesis import note
from hypothesis.stateful import (
    RuleBasedStateMachine,
)

from pluginhost.conf import get_settings
from pluginhost.delivery import work
from pluginhost.delivery.intake import take
from pluginhost.delivery.lanes import claim
from pluginhost.delivery.work import step
from pluginhost.models import Account, Chunk, Delivery, Envelope, Forgotten, Lane
from pluginhost.operations import letters, pausing
from pluginhost.operations.reading import read
from pluginhost.registry import build
from tests.outbox_model import ERASED, LANES, Block, Killed, Receiver, Track, held_ids, perform, places
from tests.samples import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from pluginhost.delivery.lanes import Claim

#: Deaths of workers after which an event is given up.
DEADLY_KILLS = 5
#: Longer than any lease, and than any wait for another attempt.
LONG = 100_000.0


@dataclass
class Held:
    """A claim of a worker that sleeps, for now or for ever."""

    lane: str
    worker: int
    claim: Claim


@dataclass
class Came:
    """What came of one step of a lane."""

    finished: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    delivered: int = 0
    skipped: int = 0
    discarded: int = 0


class World(RuleBasedStateMachine):
    """What is there, what should be, and one step of a lane with all that has to be so after it."""

    using: str

    def __init__(self) -> None:
        super().__init__()
        for model in (Envelope, Chunk, Delivery, Account, Lane, Forgotten):
            model.objects.using(self.using).all().delete()
        self.workers = [build(get_settings()).runners, build(get_settings()).runners]
        self.receivers = {lane: Receiver() for lane in LANES}
        Recorder.act.clear()
        Recorder.act.update(self.receivers)
        self.known = places(self.using)
        self.accepted: dict[str, Counter[str]] = {lane: Counter() for lane in LANES}
        self.gone: dict[str, Counter[str]] = {lane: Counter() for lane in LANES}
        """Delivered, skipped or discarded."""
        self.repeated: dict[str, Counter[str]] = {lane: Counter() for lane in LANES}
        """Taken without being finished: a worker died, lost its lease, or had no answer."""
        self.allowed: dict[str, Counter[str]] = {lane: Counter() for lane in LANES}
        """How often an event may arrive: as often as it was accepted or replayed."""
        self.persons: dict[str, str | None] = {}
        self.forgotten: set[str] = set()
        self.unwanted: set[str] = set()
        """Events of forgotten people."""
        self.interrupted: dict[str, Counter[str]] = {lane: Counter() for lane in LANES}
        """How often a worker that held the event did not come back, at most."""
        self.paused: set[str] = set()
        self.held: list[Held] = []

    lanes: list[str] = []

    def accept(self, program: tuple[Track | Block, ...]) -> None:
        for message_id, receivers, call in perform(program, self.lanes, self.using):
            self.persons[message_id] = call.person
            # What a person did before they were forgotten is not delivered, even if it turns up later.
            (self.unwanted.add if call.late and call.person in self.forgotten else self.unwanted.discard)(message_id)
            for lane in receivers:
                self.accepted[lane][message_id] += 1
                self.allowed[lane][message_id] += 1
                self.known[lane].waiting[message_id] += 1

    def lane(self, number: int) -> str:
        return self.lanes[number % len(self.lanes)]

    def prepare(self, due: bool, lane: int) -> None:
        """There is something, and all of it is due; or it is left as it is."""
        if due:
            if not self.known[self.lane(lane)].waiting:
                self.accept((Block("batch", "whole", (Track("ada"), Track(), Track("bob"), Track())),))
            take(self.using)
            self.shift(self.lane(lane), LONG)

    def shift(self, lane: str | None, seconds: float) -> None:
        rows = Delivery.objects.using(self.using).filter(**({"lane": lane} if lane else {}))
        rows.update(due_at=F("due_at") - dt.timedelta(seconds=seconds))

    def let_pause(self, lane: str) -> None:
        self.paused.add(lane)
        pausing.pause(lane, self.using, "the receiver is moved")

    def not_due(self) -> set[tuple[Any, ...]]:
        """What waits, or is in the hands of a worker, and is nobody else's to touch."""
        rows = Delivery.objects.using(self.using).filter(due_at__gt=now())
        return set(rows.values_list("id", "token", "due_at", "done", "attempts", "state"))

    def let_claim(self, lane: str, worker: int) -> Claim | None:
        others = self.not_due()
        claimed = claim(self.workers[worker][lane], self.using)
        assert claimed is None or lane not in self.paused
        assert others <= self.not_due(), "claimed before it was due"
        if claimed:
            self.interrupted[lane].update(held_ids(claimed))
        return claimed

    def overtake(self, lane: str, worker: int) -> None:
        """The lease lapses, and another worker is through with it before the first one goes on."""
        self.shift(lane, LONG)
        with suppress(Killed):
            step(self.workers[worker][lane], self.using)

    def selection(self, lane: int, which: int, *, one: bool, state: str = "dead") -> letters.Selection:
        """All of a lane, or one event that is on its own."""
        found = Delivery.objects.using(self.using).filter(lane=self.lane(lane), state=state).exclude(message_id="")
        ids = list(found.order_by("id").values_list("message_id", flat=True))
        chosen = (ids[which % len(ids)] if ids else "none",) if one else ()
        return letters.Selection(lanes=(self.lane(lane),), state=state, message_ids=chosen)

    def let_replay(self, selection: letters.Selection, rate: float | None = None) -> None:
        self.absorb()
        [lane] = selection.lanes
        chosen = Counter(self.known[lane].dead)
        if selection.message_ids:
            chosen = Counter({id_: n for id_, n in chosen.items() if id_ in selection.message_ids})
        assert letters.replay(selection, self.using, rate=rate) == chosen.total()
        self.known[lane].dead -= chosen
        self.known[lane].waiting += chosen
        self.allowed[lane] += chosen

    def let_discard(self, selection: letters.Selection) -> None:
        self.absorb()
        [lane] = selection.lanes
        fresh = places(self.using, only_fresh=True)[lane].waiting if selection.is_backlog else Counter()
        rows = Delivery.objects.using(self.using).filter(lane__in=selection.lanes, state=selection.state)
        if selection.message_ids:
            rows = rows.filter(message_id__in=selection.message_ids)
        if selection.state == "waiting":  # what a worker holds is its own, for as long as its lease lasts
            rows = rows.exclude(token__isnull=False, due_at__gt=now())
        chosen = self.ids_of(rows)
        chosen[lane] += fresh
        assert letters.discard(selection, self.using, reason="test") == sum(ids.total() for ids in chosen.values())
        self.are_discarded(chosen, selection.state)

    def ids_of(self, rows: Any) -> dict[str, Counter[str]]:
        found: dict[str, Counter[str]] = {lane: Counter() for lane in LANES}
        for letter in read(rows):
            found[letter.lane][letter.message_id] += letter.n
        return found

    def are_discarded(self, chosen: dict[str, Counter[str]], state: str) -> None:
        for lane, ids in chosen.items():
            place = self.known[lane]
            setattr(place, state, getattr(place, state) - ids)
            place.discarded += ids.total()
            self.gone[lane] += ids

    def let_wake(self, held: Held) -> None:
        rows = Delivery.objects.using(self.using)
        its_own = rows.filter(id__in=list(held.claim.deliveries), token=held.claim.token)
        overtaken = its_own.count() < len(held.claim.deliveries)
        before = set(rows.values_list("id", "token", "due_at", "done", "attempts", "state"))
        with mock.patch.object(work, "claim", return_value=held.claim):
            self.take_step(held.lane, held.worker, disturbed=True, asleep=True)
        if overtaken:
            assert set(rows.values_list("id", "token", "due_at", "done", "attempts", "state")) == before

    # --- one step of a lane ---

    def take_step(
        self,
        lane: str,
        worker: int,
        *,
        disturbed: bool = False,
        may_be_killed: bool = False,
        asleep: bool = False,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Let a worker take a step, and find out what became of each event: whether that could be."""
        receiver, before = self.receivers[lane], self.known[lane]
        was_paused = lane in self.paused and not asleep
        receiver.begin()
        self.under_way: tuple[str, Came] | None = (lane, came := Came())
        if disturbed:
            self.interrupted[lane].update(before.waiting)
        others = set() if disturbed or may_be_killed else self.not_due()
        with suppress(Killed) if may_be_killed else nullcontext():
            step(self.workers[worker][lane], self.using, stopping)
        assert others <= self.not_due(), "tried before it was due"
        receiver.disarm()
        self.absorb()
        self.under_way = None
        note(f"{lane}: {came}, taken {receiver.taken}, failed {receiver.failed}")
        if was_paused:
            assert not receiver.calls
            assert self.known[lane] == before

        assert not receiver.asked & self.unwanted
        self._check_finished(receiver, came)
        lost = receiver.taken - came.finished
        assert disturbed or not lost, f"taken, and not written down: {lost}"
        self.repeated[lane] += lost
        for id_, kinds in receiver.failed.items():
            if any(kind.endswith("arrived") for kind in kinds):
                self.repeated[lane][id_] += receiver.effects[id_]
        self._check_dead(lane, receiver, came.dead)

    def absorb(self) -> None:
        """Add what the step under way has done so far to what came of it."""
        if self.under_way is None:
            return
        lane, came = self.under_way
        now = places(self.using)
        before, after = self.known[lane], now[lane]
        assert now == {**self.known, lane: after}, "another lane changed"
        assert before.dead <= after.dead, "a dead letter rose"
        assert after.open <= before.open, "an event came from nowhere"
        came.finished += before.open - after.open
        self.gone[lane] += before.open - after.open
        came.dead += after.dead - before.dead
        for outcome in ("delivered", "skipped", "discarded"):
            change = getattr(after, outcome) - getattr(before, outcome)
            assert change >= 0
            setattr(came, outcome, getattr(came, outcome) + change)
        self.known = now

    under_way: tuple[str, Came] | None = None

    def _check_finished(self, receiver: Receiver, came: Came) -> None:
        """What is finished was sent, and is counted as what the receiver saw."""
        assert came.delivered + came.skipped + came.discarded == came.finished.total()
        forgotten = Counter({id_: n for id_, n in came.finished.items() if id_ == ERASED or id_ in self.unwanted})
        assert came.discarded == forgotten.total()
        came.finished -= forgotten
        assert came.finished <= receiver.taken + receiver.skipped, "finished, and never sent"
        surely = came.finished - receiver.skipped
        perhaps = came.finished & receiver.taken
        assert surely.total() <= came.delivered <= perhaps.total()

    def _check_dead(self, lane: str, receiver: Receiver, dead: Counter[str]) -> None:
        """Only what has a reason is given up."""
        kinds = {kind for met in receiver.failed.values() for kind in met}
        spent = "MAX_ATTEMPTS" in LANES[lane] and bool(kinds - {"retry after"})
        for id_ in dead:
            met = receiver.failed.get(id_, set())
            uncertain = lane == "careful" and any(kind.startswith("uncertain") for kind in met)
            deaths = self.interrupted[lane][id_]
            unknown = deaths >= (1 if lane == "careful" else DEADLY_KILLS)
            assert "permanent" in met or uncertain or unknown or spent, (lane, id_, met)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
