"""A state machine of the outbox: in whatever order things happen, accounts balance and no effect happens twice."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.db import OperationalError
from django.db.models import F
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pluginhost import Person
from pluginhost.conf import get_settings
from pluginhost.delivery import forgetting, letters, pausing, retention, settling, work
from pluginhost.delivery.intake import take
from pluginhost.delivery.lanes import claim
from pluginhost.delivery.reading import read
from pluginhost.delivery.work import step
from pluginhost.models import Account, Chunk, Delivery, Envelope, Forgotten, Lane
from pluginhost.registry import build
from tests.outbox_model import ERASED, ERRORS, LANES, Block, Fault, Killed, Receiver, Track, held_ids, perform, places
from tests.samples import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from pluginhost.delivery.lanes import Claim

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

#: How many runs, of how many steps each. PostgreSQL has a fourth of them.
EXAMPLES = int(os.environ.get("PLUGINHOST_TEST_EXAMPLES", "25"))
STEPS = int(os.environ.get("PLUGINHOST_TEST_STEPS", "40"))
#: After so many rounds without a fault nothing may wait any more.
ENOUGH_ROUNDS = 60
#: Deaths of workers after which an event is given up.
DEADLY_KILLS = 5
#: Longer than any lease, and than any wait for another attempt.
LONG = 100_000.0

lanes = st.integers(0, 1)
workers = st.integers(0, 1)
#: Whether all that was accepted is due by then.
due = st.sampled_from([True, True, False])
calls = st.builds(
    Track,
    person=st.sampled_from([None, None, "ada", "bob"]),
    key=st.sampled_from([None, None, None, "k1", "k2"]),
    without=st.sampled_from([None, None, None, 0, 1]),
    late=st.sampled_from([False, False, False, True]),
)


def blocks(inner: st.SearchStrategy[tuple[Track | Block, ...]]) -> st.SearchStrategy[tuple[Track | Block, ...]]:
    """Calls and blocks, with this in the blocks."""
    block = st.builds(
        Block,
        kind=st.sampled_from(["transaction", "batch", "savepoint"]),
        end=st.sampled_from(["whole", "whole", "raised", "marked"]),
        body=inner,
    )
    return st.lists(calls | block, min_size=1, max_size=3).map(tuple)


few = st.lists(calls, min_size=1, max_size=4).map(tuple)
programs = few | blocks(blocks(blocks(few)))


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


class Outbox(RuleBasedStateMachine):
    """A site, two workers, and one or two lanes at a time. The clock is moved by moving what is due."""

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

    @initialize(
        chosen=st.lists(st.sampled_from(sorted(LANES)), min_size=1, max_size=2, unique=True),
        away=st.sampled_from(["", "retryable", "unexplained", "uncertain"]),
    )
    def begin(self, chosen: list[str], away: str) -> None:
        """Few lanes, so that much happens in each."""
        self.lanes = chosen
        self.receivers[chosen[0]].away = away

    # --- the site ---

    @rule(program=programs)
    def request(self, program: tuple[Track | Block, ...]) -> None:
        self._accept(program)

    def _accept(self, program: tuple[Track | Block, ...]) -> None:
        for message_id, receivers, call in perform(program, self.lanes, self.using):
            self.persons[message_id] = call.person
            # What a person did before they were forgotten is not delivered, even if it turns up later.
            (self.unwanted.add if call.late and call.person in self.forgotten else self.unwanted.discard)(message_id)
            for lane in receivers:
                self.accepted[lane][message_id] += 1
                self.allowed[lane][message_id] += 1
                self.known[lane].waiting[message_id] += 1

    # --- workers ---

    @rule()
    def take(self) -> None:
        take(self.using)

    @rule(lane=lanes, worker=workers, due=due, stop=st.sampled_from([False, False, True]), rounds=st.integers(1, 3))
    def deliver(self, lane: int, worker: int, due: bool, stop: bool, rounds: int) -> None:
        """Told to end in the middle of it, a worker gives back what it has not reached."""
        for _ in range(rounds):
            self._make(due, lane)
            self._step(self._lane(lane), worker, stopping=lambda: stop)

    @rule(
        lane=lanes,
        worker=workers,
        due=due,
        calls_before=st.integers(0, 3),
        before=st.booleans(),
        what=st.sampled_from(["killed", "killed", "overtaken", "lapsed", "paused", "replayed", "discarded", "cleaned"]),
    )
    def deliver_while(self, lane: int, worker: int, due: bool, calls_before: int, before: bool, what: str) -> None:
        """Something happens elsewhere while the receiver is asked for the nth time, before it takes them or after."""
        self._make(due, lane)
        name = self._lane(lane)
        acts: dict[str, Callable[[], None]] = {
            "killed": Receiver.kill,
            "overtaken": partial(self._overtake, name, 1 - worker),
            "lapsed": partial(self._shift, name, LONG),
            "paused": partial(self._pause, name),
            "replayed": partial(self._replay, letters.Selection(lanes=(name,))),
            "discarded": partial(self._discard, letters.Selection(lanes=(name,), state="waiting")),
            "cleaned": partial(retention.clean, self.using),
        }
        self.receivers[name].arm(acts[what], calls_before, before=before)
        self._step(name, worker, disturbed=what in ("killed", "overtaken", "lapsed"), may_be_killed=True)

    @rule(lane=lanes, worker=workers, due=due)
    def deliver_with_a_lost_answer(self, lane: int, worker: int, due: bool) -> None:
        """The commit that finishes a batch happens, and the answer that says so does not arrive."""
        self._make(due, lane)
        settle_once = settling._settle
        lost: list[bool] = []

        def lose(*arguments: Any) -> Any:
            done = settle_once(*arguments)
            if not lost:
                lost.append(True)
                raise OperationalError("the connection was lost")
            return done

        with mock.patch.object(settling, "_settle", lose), mock.patch.object(settling, "PAUSES", (0.0,)):
            self._step(self._lane(lane), worker, disturbed=True)

    @rule(lane=lanes, deaths=st.lists(st.integers(-1, 3), min_size=2, max_size=DEADLY_KILLS + 1))
    def workers_die_one_after_the_other(self, lane: int, deaths: list[int]) -> None:
        """Each before it has done anything (-1), or as it has sent so many times."""
        name = self._lane(lane)
        for calls in deaths:
            self._make(True, lane)
            if calls < 0:
                self._claim(name, 0)
            else:
                self.receivers[name].arm(Receiver.kill, calls, before=False)
                self._step(name, 0, disturbed=True, may_be_killed=True)

    @rule(lane=lanes, worker=workers, due=due)
    def claim(self, lane: int, worker: int, due: bool) -> None:
        """A worker claims, and then sleeps."""
        self._make(due, lane)
        name = self._lane(lane)
        if claimed := self._claim(name, worker):
            self.held = [*self.held[-3:], Held(name, worker, claimed)]

    @rule(lane=lanes, worker=workers)
    def two_hold_the_same_and_the_late_one_goes_on(self, lane: int, worker: int) -> None:
        """And so may the other one, by and by."""
        name = self._lane(lane)
        self._make(True, lane)
        late = self._claim(name, worker)
        self._make(True, lane)
        if (claimed := self._claim(name, 1 - worker)) and late:
            self.held = [*self.held[-3:], Held(name, 1 - worker, claimed)]
            self._wake(Held(name, worker, late))

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 3))
    def wake(self, which: int) -> None:
        """It wakes and goes on, whatever became of its lease; also if the lane has been paused since."""
        self._wake(self.held.pop(which % len(self.held)))

    def _wake(self, held: Held) -> None:
        rows = Delivery.objects.using(self.using)
        its_own = rows.filter(id__in=list(held.claim.deliveries), token=held.claim.token)
        overtaken = its_own.count() < len(held.claim.deliveries)
        before = set(rows.values_list("id", "token", "due_at", "done", "attempts", "state"))
        with mock.patch.object(work, "claim", return_value=held.claim):
            self._step(held.lane, held.worker, disturbed=True, asleep=True)
        if overtaken:
            assert set(rows.values_list("id", "token", "due_at", "done", "attempts", "state")) == before

    # --- receivers ---

    @rule(
        lane=lanes,
        which=st.integers(0, 50),
        kind=st.sampled_from(["permanent", "permanent", *sorted(ERRORS)]),
        times=st.sampled_from([1, 2, 1000]),
        partly=st.booleans(),
    )
    def event_will_fail(self, lane: int, which: int, kind: str, times: int, partly: bool) -> None:
        name = self._lane(lane)
        if ids := list(self.known[name].open):
            is_partial = partly and not kind.startswith("uncertain")
            self.receivers[name].faults[ids[which % len(ids)]] = Fault(kind, times, is_partial)

    @rule(lane=lanes, kind=st.sampled_from([""] * len(ERRORS) + sorted(ERRORS)))
    def receiver_goes_away_or_comes_back(self, lane: int, kind: str) -> None:
        self.receivers[self._lane(lane)].away = kind

    # --- the clock ---

    @rule(lane=lanes, seconds=st.sampled_from([LONG, 5.0, 90.0, -90.0, -LONG]))
    def clock_jumps(self, lane: int, seconds: float) -> None:
        self._shift(self._lane(lane), seconds)

    # --- people ---

    @rule(lane=lanes, on=st.sampled_from([False, False, True]))
    def pause_or_resume(self, lane: int, on: bool) -> None:
        name = self._lane(lane)
        if on:
            self._pause(name)
        else:
            self.paused.discard(name)
            pausing.resume(name, self.using)

    @precondition(lambda self: any(place.dead for place in self.known.values()))
    @rule(lane=lanes, which=st.integers(0, 50), one=st.booleans(), rate=st.sampled_from([None, 0.01, 100.0]))
    def replay(self, lane: int, which: int, one: bool, rate: float | None) -> None:
        self._replay(self._selection(lane, which, one=one), rate)

    @rule(
        lane=lanes,
        which=st.integers(0, 50),
        one=st.sampled_from([True, True, False]),
        state=st.sampled_from(["dead", "dead", "waiting"]),
    )
    def discard(self, lane: int, which: int, one: bool, state: str) -> None:
        self._discard(self._selection(lane, which, one=one, state=state))

    @rule(days=st.sampled_from([0, 0, 91]))
    def clean(self, days: int) -> None:
        """After three months dead letters are thrown away, and nothing else is."""
        if days:
            self._shift(None, days * 86400.0)
        old = Delivery.objects.using(self.using).filter(state="dead", due_at__lt=_now() - dt.timedelta(days=90))
        letters_by_lane = self._ids_of(old)
        retention.clean(self.using)
        self._are_discarded(letters_by_lane, "dead")

    @rule(person=st.sampled_from(["ada", "bob"]))
    def forget(self, person: str) -> None:
        """Workers that sleep are waited for, until their leases are over."""
        before = self.known
        lapse = partial(self._shift, None, LONG)
        done = forgetting.forget(Person(user_ids=(person,)), self.using, sleep=lambda seconds: lapse())
        assert done.complete
        time.sleep(0.003)  # the clocks' grain: what happens from now on happens after it
        self.forgotten.add(person)
        self.known = places(self.using)
        for lane, was in before.items():
            ids = Counter({id_: n for id_, n in was.open.items() if self.persons.get(id_) == person})
            now = self.known[lane]
            self.unwanted.update(ids)
            erased = Counter({ERASED: now.waiting[ERASED] - was.waiting[ERASED]})
            assert now.waiting == was.waiting - ids + erased
            assert now.dead == was.dead - ids
            assert (now.delivered, now.skipped) == (was.delivered, was.skipped)
            gone = now.discarded - was.discarded
            assert erased.total() + gone == ids.total()
            self.accepted[lane] = self.accepted[lane] - ids + Counter({ERASED: ids.total()})
            self.gone[lane][ERASED] += gone

    # --- what always holds ---

    @invariant()
    def every_event_is_where_it_should_be(self) -> None:
        assert places(self.using) == self.known
        for lane, place in self.known.items():
            assert place.open + self.gone[lane] == self.accepted[lane]
            assert place.delivered + place.skipped + place.discarded == self.gone[lane].total()

    @invariant()
    def no_effect_happens_twice(self) -> None:
        for lane, receiver in self.receivers.items():
            allowed = Counter(self.allowed[lane])
            if lane != "careful":
                allowed += self.repeated[lane]
            assert receiver.effects <= allowed, (lane, receiver.effects - allowed)

    def teardown(self) -> None:
        """When all faults are over, everything arrives or has been given up."""
        if places(self.using) != self.known:
            return  # it has failed before
        for lane in self.receivers.keys() & set(getattr(self, "lanes", ())):
            self.receivers[lane].faults.clear()
            self.receivers[lane].away = ""
            pausing.resume(lane, self.using)
        self.paused.clear()
        for _ in range(ENOUGH_ROUNDS):
            take(self.using)
            self._shift(None, LONG)
            for lane, place in self.known.items():
                if place.waiting:
                    self._step(lane, 0)
            if not any(place.waiting for place in self.known.values()):
                break
        self.every_event_is_where_it_should_be()
        self.no_effect_happens_twice()
        assert not any(place.waiting for place in self.known.values())
        retention.clean(self.using)
        assert not Chunk.objects.using(self.using).exists()

    # --- how it is done ---

    def _lane(self, number: int) -> str:
        return self.lanes[number % len(self.lanes)]

    def _make(self, due: bool, lane: int) -> None:
        """There is something, and all of it is due; or it is left as it is."""
        if due:
            if not self.known[self._lane(lane)].waiting:
                self._accept((Block("batch", "whole", (Track("ada"), Track(), Track("bob"), Track())),))
            take(self.using)
            self._shift(self._lane(lane), LONG)

    def _shift(self, lane: str | None, seconds: float) -> None:
        rows = Delivery.objects.using(self.using).filter(**({"lane": lane} if lane else {}))
        rows.update(due_at=F("due_at") - dt.timedelta(seconds=seconds))

    def _pause(self, lane: str) -> None:
        self.paused.add(lane)
        pausing.pause(lane, self.using, "the receiver is moved")

    def _not_due(self) -> set[tuple[Any, ...]]:
        """What waits, or is in the hands of a worker, and is nobody else's to touch."""
        rows = Delivery.objects.using(self.using).filter(due_at__gt=_now())
        return set(rows.values_list("id", "token", "due_at", "done", "attempts", "state"))

    def _claim(self, lane: str, worker: int) -> Claim | None:
        others = self._not_due()
        claimed = claim(self.workers[worker][lane], self.using)
        assert claimed is None or lane not in self.paused
        assert others <= self._not_due(), "claimed before it was due"
        if claimed:
            self.interrupted[lane].update(held_ids(claimed))
        return claimed

    def _overtake(self, lane: str, worker: int) -> None:
        """The lease lapses, and another worker is through with it before the first one goes on."""
        self._shift(lane, LONG)
        with suppress(Killed):
            step(self.workers[worker][lane], self.using)

    def _selection(self, lane: int, which: int, *, one: bool, state: str = "dead") -> letters.Selection:
        """All of a lane, or one event that is on its own."""
        found = Delivery.objects.using(self.using).filter(lane=self._lane(lane), state=state).exclude(message_id="")
        ids = list(found.order_by("id").values_list("message_id", flat=True))
        chosen = (ids[which % len(ids)] if ids else "none",) if one else ()
        return letters.Selection(lanes=(self._lane(lane),), state=state, message_ids=chosen)

    def _replay(self, selection: letters.Selection, rate: float | None = None) -> None:
        self._absorb()
        [lane] = selection.lanes
        chosen = Counter(self.known[lane].dead)
        if selection.message_ids:
            chosen = Counter({id_: n for id_, n in chosen.items() if id_ in selection.message_ids})
        assert letters.replay(selection, self.using, rate=rate) == chosen.total()
        self.known[lane].dead -= chosen
        self.known[lane].waiting += chosen
        self.allowed[lane] += chosen

    def _discard(self, selection: letters.Selection) -> None:
        self._absorb()
        [lane] = selection.lanes
        fresh = places(self.using, only_fresh=True)[lane].waiting if selection.is_backlog else Counter()
        rows = Delivery.objects.using(self.using).filter(lane__in=selection.lanes, state=selection.state)
        if selection.message_ids:
            rows = rows.filter(message_id__in=selection.message_ids)
        if selection.state == "waiting":  # what a worker holds is its own, for as long as its lease lasts
            rows = rows.exclude(token__isnull=False, due_at__gt=_now())
        chosen = self._ids_of(rows)
        chosen[lane] += fresh
        assert letters.discard(selection, self.using, reason="test") == sum(ids.total() for ids in chosen.values())
        self._are_discarded(chosen, selection.state)

    def _ids_of(self, rows: Any) -> dict[str, Counter[str]]:
        found: dict[str, Counter[str]] = {lane: Counter() for lane in LANES}
        for letter in read(rows):
            found[letter.lane][letter.message_id] += letter.n
        return found

    def _are_discarded(self, chosen: dict[str, Counter[str]], state: str) -> None:
        for lane, ids in chosen.items():
            place = self.known[lane]
            setattr(place, state, getattr(place, state) - ids)
            place.discarded += ids.total()
            self.gone[lane] += ids

    # --- one step of a lane ---

    def _step(
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
        others = set() if disturbed or may_be_killed else self._not_due()
        with suppress(Killed) if may_be_killed else nullcontext():
            step(self.workers[worker][lane], self.using, stopping)
        assert others <= self._not_due(), "tried before it was due"
        receiver.disarm()
        self._absorb()
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

    def _absorb(self) -> None:
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


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@pytest.mark.timeout(3600)
def test_the_outbox_loses_nothing_and_does_nothing_twice(database, configure):
    configure("outbox", **LANES)
    Outbox.using = database
    run_state_machine_as_test(
        Outbox,
        settings=settings(
            max_examples=EXAMPLES if database == "default" else max(EXAMPLES // 4, 1),
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
