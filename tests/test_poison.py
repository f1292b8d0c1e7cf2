"""Events that harm: whatever a plugin raises for one of them, the others arrive and the lane goes on."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from django.db.models.functions import Now

from pluginhost import PartialFailure, PermanentError, RetryableError, host
from pluginhost.delivery.intake import take
from pluginhost.delivery.lanes import claim
from pluginhost.delivery.work import step
from pluginhost.models import Chunk, Delivery
from tests.samples import Recorder
from tests.steps import account, given, make_due, raising, rounds, seconds_until_due, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)
both_hooks = pytest.mark.parametrize("lane", ["recorder", "folder"])


@pytest.fixture
def database(any_database):
    return any_database


#: More than the kills that find the one event, and the kills that bury it.
MANY_KILLS = 12


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Killed(BaseException):
    """What no lane catches, as if the process had ended there."""


def partial_failure(make, key=str):
    """A batch in which every event that is called ``bad`` fails."""

    def act(batch) -> None:
        if failed := {key(event.message_id): make() for event in batch if event.name == "bad"}:
            raise PartialFailure(failed)

    return act


def assert_only_the_bad_one_is_dead(database: str, lane: str) -> Delivery:
    assert sorted(seen(lane)) == ["a", "b", "c"]
    assert account(database, lane) == {"accepted": 4, "delivered": 3, "dead": 1}
    letter = Delivery.objects.get()
    assert (letter.event_name, letter.state) == ("bad", "dead")
    return letter


# --- what is raised ---


@both_hooks
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda: RuntimeError("body: \x00\x01"), "RuntimeError: body: ", id="NUL"),
        pytest.param(lambda: PermanentError("body: \udcff"), "PermanentError: body: ", id="surrogate"),
        pytest.param(Speechless, "Speechless", id="no text"),
    ],
)
def test_an_error_that_no_column_takes_is_stored_nevertheless(database, configure, lane, make, reason):
    configure("outbox", **{lane: {"MAX_ATTEMPTS": 4}})
    Recorder.act[lane] = raising(make, "bad")
    track("a", "b", "bad", "c")

    rounds(database, lane, 6)

    assert assert_only_the_bad_one_is_dead(database, lane).reason.startswith(reason)


@pytest.mark.parametrize(("asked", "limit"), [("120", 120), (1.7e12, 3600), (float("nan"), 30)], ids=str)
def test_any_retry_after_becomes_a_wait(database, configure, asked, limit):
    configure("outbox", folder={"RETRY_DELAY": 30})
    Recorder.act["folder"] = raising(lambda: RetryableError("busy", retry_after=asked))
    track("a", "b")

    rounds(database, "folder")

    assert limit / 2 - 5 < seconds_until_due() <= limit
    assert Delivery.objects.get().attempts == (1 if limit == 30 else 0)
    assert account(database, "folder") == {"accepted": 2, "waiting": 2}


@both_hooks
def test_wants_that_raises_for_one_event_fails_that_one(database, configure, monkeypatch, lane):
    configure("outbox", **{lane: {"MAX_ATTEMPTS": 2}})
    monkeypatch.setattr(Recorder, "wants", lambda self, event: event.name != "bad" or event.properties["absent"])
    track("a", "b", "bad", "c")

    rounds(database, lane)
    assert seen(lane) == ["a", "b", "c"]
    assert account(database, lane) == {"accepted": 4, "delivered": 3, "waiting": 1}
    rounds(database, lane, 3)

    assert "KeyError" in assert_only_the_bad_one_is_dead(database, lane).reason


@pytest.mark.parametrize("value", ["refused", None])
def test_partial_failure_without_an_exception_is_an_unexplained_failure(database, configure, value):
    configure("outbox", folder={"MAX_ATTEMPTS": 4})
    Recorder.act["folder"] = partial_failure(lambda: value)
    track("a", "b", "bad", "c")

    rounds(database, "folder")
    assert account(database, "folder") == {"accepted": 4, "waiting": 4}
    rounds(database, "folder", 5)

    assert "TypeError" in assert_only_the_bad_one_is_dead(database, "folder").reason


def test_partial_failure_of_strange_events_delivers_nothing(database, configure):
    configure("outbox", folder={"MAX_ATTEMPTS": 2})
    Recorder.act["folder"] = raising(lambda: PartialFailure({str(uuid.uuid4()): PermanentError("no")}))
    track("a", "b")

    rounds(database, "folder")
    assert account(database, "folder") == {"accepted": 2, "waiting": 2}
    rounds(database, "folder", 3)

    assert account(database, "folder") == {"accepted": 2, "dead": 2}


def test_partial_failure_may_be_keyed_by_uuids(database, configure):
    configure("outbox", folder={})
    act = partial_failure(lambda: PermanentError("no such goal"), key=uuid.UUID)
    delivered = []

    def remember(batch) -> None:
        delivered.extend(event.name for event in batch if event.name != "bad")
        act(batch)

    Recorder.act["folder"] = remember
    track("a", "b", "bad", "c")
    rounds(database, "folder")

    assert delivered == ["a", "b", "c"]
    assert account(database, "folder") == {"accepted": 4, "delivered": 3, "dead": 1}
    assert Delivery.objects.get().reason == "PermanentError: no such goal"


def test_an_event_that_always_asks_for_a_wait_does_not_hold_up_the_others(database, configure):
    configure("outbox", recorder={"MAX_ATTEMPTS": 3})
    Recorder.act["recorder"] = raising(lambda: RetryableError("one user's limit", retry_after=1), "limited")
    track("limited", "a", "limited", "b", "c")

    rounds(database, "recorder", 10)

    assert seen("recorder") == ["a", "b", "c"]
    assert account(database, "recorder") == {"accepted": 5, "delivered": 3, "waiting": 2}


# --- what kills ---


def kills_until_empty(database: str, lane: str) -> int:
    """How many workers die until nothing waits in the lane."""
    take(database)
    kills = 0
    for _ in range(60):
        make_due()
        try:
            if step(host.registry.runners[lane], database) is None:
                return kills
        except Killed:
            kills += 1
    raise AssertionError(f"the lane is not empty after {kills} kills")


@both_hooks
@pytest.mark.parametrize("place", [0, 17])
def test_an_event_that_kills_each_worker_is_given_up(database, configure, lane, place):
    configure("outbox", **{lane: {}})
    Recorder.act[lane] = raising(Killed, "killer")
    names = [f"event {number}" for number in range(29)]
    track(*names[:place], "killer", *names[place:])

    assert kills_until_empty(database, lane) <= MANY_KILLS

    assert set(seen(lane)) == set(names)
    letter = Delivery.objects.get()
    assert (letter.event_name, letter.state, letter.n) == ("killer", "dead", 1)
    assert "a worker died" in letter.reason
    assert account(database, lane) == {"accepted": 30, "delivered": 29, "dead": 1}
    assert Chunk.objects.count() == 0


def test_a_killer_that_cannot_be_sent_twice_is_given_up_too(database, configure, monkeypatch):
    monkeypatch.setattr(Recorder, "dedupes", False)
    configure("outbox", recorder={})
    Recorder.act["recorder"] = raising(Killed, "killer")
    track("a", "killer", "b")

    assert kills_until_empty(database, "recorder") <= MANY_KILLS

    assert seen("recorder") == ["a", "b"]
    assert account(database, "recorder") == {"accepted": 3, "delivered": 2, "dead": 1}


def test_a_worker_that_is_killed_now_and_then_costs_no_event(database, configure):
    configure("outbox", folder={})
    died = []

    def act(argument) -> None:
        if len(died) < 4 and any(event.name == "b" for event in given(argument)):
            died.append(True)
            raise Killed

    Recorder.act["folder"] = act
    track("a", "b", "c")

    assert kills_until_empty(database, "folder") == 4

    assert set(seen("folder")) == {"a", "b", "c"}
    assert account(database, "folder") == {"accepted": 3, "delivered": 3}


def test_what_may_have_arrived_before_two_deaths_is_not_sent_again(database, configure, monkeypatch):
    """The worker after the second death tries events one at a time: all that the first had in hand are uncertain."""
    configure("outbox", recorder={"ON_UNCERTAIN": "dead", "BATCH_SIZE": 3})
    monkeypatch.setattr(Recorder, "dedupes", False)
    sent: list[str] = []

    def die_at_the_second(event) -> None:
        sent.append(event.name)
        if len(sent) == 2:
            raise Killed

    Recorder.act["recorder"] = die_at_the_second
    track("a", "b", "c", "d")
    with pytest.raises(Killed):
        rounds(database, "recorder")
    make_due()
    claim(host.registry.runners["recorder"], database)  # and dies before it has done anything

    rounds(database, "recorder", 2)

    assert sent == ["a", "b", "d"]
    assert account(database, "recorder") == {"accepted": 4, "delivered": 1, "dead": 3}


@pytest.mark.parametrize("ending", ["told to stop", "receiver away"])
def test_what_may_have_arrived_is_not_sent_again_after_a_worker_that_got_no_further(
    database, configure, monkeypatch, ending
):
    """It stops, or has to wait, before it has come to all that another worker had in hand when it died."""
    configure("outbox", recorder={"ON_UNCERTAIN": "dead", "BATCH_SIZE": 3})
    monkeypatch.setattr(Recorder, "dedupes", False)
    runner = host.registry.runners["recorder"]
    sent: list[str] = []
    Recorder.act["recorder"] = lambda event: sent.append(event.name)
    track("first", "second")
    take(database)
    track("a")
    take(database)
    Delivery.objects.filter(id=Delivery.objects.earliest("id").pk).update(due_at=Now() + dt.timedelta(days=1))
    claim(runner, database)  # of the other alone; it may have arrived
    make_due()

    if ending == "receiver away":
        Recorder.act["recorder"] = raising(lambda: RetryableError("away"))
    step(runner, database, stopping=lambda: True)
    Recorder.act["recorder"] = lambda event: sent.append(event.name)
    rounds(database, "recorder", 3)

    assert sent == ["first", "second"]
    assert account(database, "recorder") == {"accepted": 3, "delivered": 2, "dead": 1}


@pytest.mark.parametrize("place", [0, 1, 2500])
def test_one_bad_event_of_a_large_batch_takes_no_other_with_it(database, configure, place):
    """However often the batch has to be halved."""
    configure("outbox", folder={"BATCH_SIZE": 5000, "MAX_ATTEMPTS": 6})

    def act(batch) -> None:
        if any(event.name == "bad" for event in batch):
            raise ValueError("of one of them")

    Recorder.act["folder"] = act
    with host.batch(using=database):
        for number in range(5000):
            host.track(None, "bad" if number == place else "good")
    rounds(database, "folder", 20)
    assert account(database, "folder") == {"accepted": 5000, "delivered": 4999, "dead": 1}
