"""A state machine of the outbox: in whatever order things happen, accounts balance and no effect happens twice."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.db import OperationalError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pluginhost import Person
from pluginhost.delivery import settling
from pluginhost.delivery.intake import take
from pluginhost.models import Chunk, Delivery
from pluginhost.operations import forgetting, letters, pausing, retention
from tests.outbox_model import ERASED, ERRORS, LANES, Block, Fault, Receiver, Track, places
from tests.outbox_world import DEADLY_KILLS, LONG, Held, World, now

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

#: How many runs, of how many steps each. PostgreSQL has a fourth of them.
EXAMPLES = int(os.environ.get("PLUGINHOST_TEST_EXAMPLES", "15"))
STEPS = int(os.environ.get("PLUGINHOST_TEST_STEPS", "40"))
#: After so many rounds without a fault nothing may wait any more.
ENOUGH_ROUNDS = 60

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


class Outbox(World):
    """A site, two workers, and one or two lanes at a time. The clock is moved by moving what is due."""

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
        self.accept(program)

    # --- workers ---

    @rule()
    def take(self) -> None:
        take(self.using)

    @rule(lane=lanes, worker=workers, due=due, stop=st.sampled_from([False, False, True]), rounds=st.integers(1, 3))
    def deliver(self, lane: int, worker: int, due: bool, stop: bool, rounds: int) -> None:
        """Told to end in the middle of it, a worker gives back what it has not reached."""
        for _ in range(rounds):
            self.prepare(due, lane)
            self.take_step(self.lane(lane), worker, stopping=lambda: stop)

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
        self.prepare(due, lane)
        name = self.lane(lane)
        acts: dict[str, Callable[[], None]] = {
            "killed": Receiver.kill,
            "overtaken": partial(self.overtake, name, 1 - worker),
            "lapsed": partial(self.shift, name, LONG),
            "paused": partial(self.let_pause, name),
            "replayed": partial(self.let_replay, letters.Selection(lanes=(name,))),
            "discarded": partial(self.let_discard, letters.Selection(lanes=(name,), state="waiting")),
            "cleaned": partial(retention.clean, self.using),
        }
        self.receivers[name].arm(acts[what], calls_before, before=before)
        self.take_step(name, worker, disturbed=what in ("killed", "overtaken", "lapsed"), may_be_killed=True)

    @rule(lane=lanes, worker=workers, due=due)
    def deliver_with_a_lost_answer(self, lane: int, worker: int, due: bool) -> None:
        """The commit that finishes a batch happens, and the answer that says so does not arrive."""
        self.prepare(due, lane)
        settle_once = settling._settle
        lost: list[bool] = []

        def lose(*arguments: Any) -> Any:
            done = settle_once(*arguments)
            if not lost:
                lost.append(True)
                raise OperationalError("the connection was lost")
            return done

        with mock.patch.object(settling, "_settle", lose), mock.patch.object(settling, "PAUSES", (0.0,)):
            self.take_step(self.lane(lane), worker, disturbed=True)

    @rule(lane=lanes, deaths=st.lists(st.integers(-1, 3), min_size=2, max_size=DEADLY_KILLS + 1))
    def workers_die_one_after_the_other(self, lane: int, deaths: list[int]) -> None:
        """Each before it has done anything (-1), or as it has sent so many times."""
        name = self.lane(lane)
        for calls in deaths:
            self.prepare(True, lane)
            if calls < 0:
                self.let_claim(name, 0)
            else:
                self.receivers[name].arm(Receiver.kill, calls, before=False)
                self.take_step(name, 0, disturbed=True, may_be_killed=True)

    @rule(lane=lanes, worker=workers, due=due)
    def claim(self, lane: int, worker: int, due: bool) -> None:
        """A worker claims, and then sleeps."""
        self.prepare(due, lane)
        name = self.lane(lane)
        if claimed := self.let_claim(name, worker):
            self.held = [*self.held[-3:], Held(name, worker, claimed)]

    @rule(lane=lanes, worker=workers)
    def two_hold_the_same_and_the_late_one_goes_on(self, lane: int, worker: int) -> None:
        """And so may the other one, by and by."""
        name = self.lane(lane)
        self.prepare(True, lane)
        late = self.let_claim(name, worker)
        self.prepare(True, lane)
        if (claimed := self.let_claim(name, 1 - worker)) and late:
            self.held = [*self.held[-3:], Held(name, 1 - worker, claimed)]
            self.let_wake(Held(name, worker, late))

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 3))
    def wake(self, which: int) -> None:
        """It wakes and goes on, whatever became of its lease; also if the lane has been paused since."""
        self.let_wake(self.held.pop(which % len(self.held)))

    # --- receivers ---

    @rule(
        lane=lanes,
        which=st.integers(0, 50),
        kind=st.sampled_from(["permanent", "permanent", *sorted(ERRORS)]),
        times=st.sampled_from([1, 2, 1000]),
        partly=st.booleans(),
    )
    def event_will_fail(self, lane: int, which: int, kind: str, times: int, partly: bool) -> None:
        name = self.lane(lane)
        if ids := list(self.known[name].open):
            is_partial = partly and not kind.startswith("uncertain")
            self.receivers[name].faults[ids[which % len(ids)]] = Fault(kind, times, is_partial)

    @rule(lane=lanes, kind=st.sampled_from([""] * len(ERRORS) + sorted(ERRORS)))
    def receiver_goes_away_or_comes_back(self, lane: int, kind: str) -> None:
        self.receivers[self.lane(lane)].away = kind

    # --- the clock ---

    @rule(lane=lanes, seconds=st.sampled_from([LONG, 5.0, 90.0, -90.0, -LONG]))
    def clock_jumps(self, lane: int, seconds: float) -> None:
        self.shift(self.lane(lane), seconds)

    # --- people ---

    @rule(lane=lanes, on=st.sampled_from([False, False, True]))
    def pause_or_resume(self, lane: int, on: bool) -> None:
        name = self.lane(lane)
        if on:
            self.let_pause(name)
        else:
            self.paused.discard(name)
            pausing.resume(name, self.using)

    @precondition(lambda self: any(place.dead for place in self.known.values()))
    @rule(lane=lanes, which=st.integers(0, 50), one=st.booleans(), rate=st.sampled_from([None, 0.01, 100.0]))
    def replay(self, lane: int, which: int, one: bool, rate: float | None) -> None:
        self.let_replay(self.selection(lane, which, one=one), rate)

    @rule(
        lane=lanes,
        which=st.integers(0, 50),
        one=st.sampled_from([True, True, False]),
        state=st.sampled_from(["dead", "dead", "waiting"]),
    )
    def discard(self, lane: int, which: int, one: bool, state: str) -> None:
        self.let_discard(self.selection(lane, which, one=one, state=state))

    @rule(days=st.sampled_from([0, 0, 91]))
    def clean(self, days: int) -> None:
        """After three months dead letters are thrown away, and nothing else is."""
        if days:
            self.shift(None, days * 86400.0)
        old = Delivery.objects.using(self.using).filter(state="dead", due_at__lt=now() - dt.timedelta(days=90))
        letters_by_lane = self.ids_of(old)
        retention.clean(self.using)
        self.are_discarded(letters_by_lane, "dead")

    @rule(person=st.sampled_from(["ada", "bob"]))
    def forget(self, person: str) -> None:
        """Workers that sleep are waited for, until their leases are over."""
        before = self.known
        lapse = partial(self.shift, None, LONG)
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
            self.shift(None, LONG)
            for lane, place in self.known.items():
                if place.waiting:
                    self.take_step(lane, 0)
            if not any(place.waiting for place in self.known.values()):
                break
        self.every_event_is_where_it_should_be()
        self.no_effect_happens_twice()
        assert not any(place.waiting for place in self.known.values())
        retention.clean(self.using)
        assert not Chunk.objects.using(self.using).exists()


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
