"""A person is forgotten: in the outbox, in what workers hold, and in whatever turns up later."""

from __future__ import annotations

import datetime as dt
import os
import threading
import warnings
from collections import Counter
from hashlib import sha256

import pytest
from django.db import connections, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pluginhost import PermanentError, RetryableError, host
from pluginhost.delivery import accounts, lanes, work
from pluginhost.delivery import marks as marks_module
from pluginhost.delivery.ingest import ingest
from pluginhost.delivery.intake import take
from pluginhost.delivery.work import step
from pluginhost.events import encode
from pluginhost.models import Account, Chunk, Delivery, Envelope, Forgotten, Lane
from pluginhost.operations import erasing
from pluginhost.operations.forgetting import Marks, ask, forget, look, mark, marks, sweep
from pluginhost.plugin import Person
from pluginhost.signals import events_discarded
from tests.processes import wait_until
from tests.samples import Recorder
from tests.steps import account, make_due, rounds, run, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

ADA = Person(user_ids=("user-ada",), anonymous_ids=("browser-ada",))
#: How an event may show that it is Ada's.
HERS = {
    "user": {"user_id": "user-ada"},
    "anonymous": {"anonymous_id": "browser-ada"},
    "both": {"user_id": "user-ada", "anonymous_id": "browser-ada"},
    "shared": {"user_id": "user-bea", "anonymous_id": "browser-ada"},
}
#: How far a mark reaches, and a bit.
LATER = marks_module.AHEAD + dt.timedelta(milliseconds=5)
NOT_HERS = {"bea": {"user_id": "user-bea", "anonymous_id": "browser-bea"}, "nobody": {}}
WHO = HERS | NOT_HERS


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def clear() -> None:
    for model in (Envelope, Chunk, Delivery, Account, Forgotten, Lane):
        model.objects.all().delete()
    Recorder.reset()


def payloads() -> bytes:
    """All that the outbox keeps of events."""
    tables = [model.objects.values_list("payload", flat=True) for model in (Envelope, Chunk, Delivery)]
    return b"\n".join(bytes(payload) for table in tables for payload in table if payload)


def assert_nothing_of_ada_is_kept() -> None:
    assert b"user-ada" not in payloads()
    assert b"browser-ada" not in payloads()


def all_lanes(database: str) -> dict[str, dict[str, int]]:
    return {lane: account(database, lane) for lane in accounts.read(database)}


# --- wherever it is ---


def test_from_an_envelope_the_persons_events_are_taken_out(configure, any_database):
    configure("outbox", recorder={}, folder={})
    with host.batch():
        host.track(None, "hers", user_id="user-ada")
        host.track(None, "another's", user_id="user-bea")
    host.track(None, "alone", anonymous_id="browser-ada")

    done = forget(ADA, any_database)

    assert (done.found.envelopes, done.found.events, done.complete) == (2, 2, True)
    assert Envelope.objects.get().n == 1
    assert_nothing_of_ada_is_kept()
    waits = {"accepted": 3, "waiting": 1, "discarded": 2}
    assert all_lanes(any_database) == {"recorder": waits, "folder": waits}
    run(any_database, "recorder")
    assert seen("recorder") == ["another's"]


def test_in_a_chunk_each_lane_discards_what_it_still_owes(configure, any_database):
    configure("outbox", recorder={}, folder={})
    with host.batch():
        for name, who in [("a", {}), ("hers", HERS["user"]), ("b", {}), ("also hers", HERS["both"]), ("c", {})]:
            host.track(None, name, **who)
    run(any_database, "recorder")

    done = forget(ADA, any_database)

    assert (done.found.chunks, done.found.events) == (2, 2)
    assert_nothing_of_ada_is_kept()
    run(any_database, "folder")
    assert seen("folder") == ["a", "b", "c"]
    assert all_lanes(any_database) == {
        "recorder": {"accepted": 5, "delivered": 5},
        "folder": {"accepted": 5, "delivered": 3, "discarded": 2},
    }
    assert not Chunk.objects.exists()


def test_dead_letters_and_what_is_tried_again_are_deleted(configure, any_database):
    configure("outbox", recorder={})

    def fail(event):
        raise PermanentError("no") if event.name == "dead" else RuntimeError("not yet")

    Recorder.act["recorder"] = fail
    with host.batch():
        for name in ("dead", "retry"):
            host.track(None, name, **HERS["user"])
            host.track(None, name, **NOT_HERS["bea"])
    rounds(any_database, "recorder", 8)

    done = forget(ADA, any_database)

    assert (done.found.dead, done.found.waiting, done.found.chunks) == (1, 1, 0)
    assert_nothing_of_ada_is_kept()
    assert account(any_database, "recorder") == {"accepted": 4, "waiting": 1, "dead": 1, "discarded": 2}


def test_the_other_id_of_an_alias_is_the_persons_whatever_kind_it_is(configure, database):
    configure("outbox", recorder={})
    host.alias(None, "browser-ada", "another")
    host.alias(None, "user-ada", "another")
    host.alias(None, "browser-bea", "another")
    assert forget(ADA, database).found.events == 2
    run(database, "recorder")
    assert [event.previous_id for event in Recorder.seen["recorder"]] == ["browser-bea"]


def test_a_user_id_and_an_anonymous_id_of_the_same_text_are_two(configure, database):
    configure("outbox", recorder={})
    host.track(None, "user", user_id="7")
    host.track(None, "browser", anonymous_id="7")
    forget(Person(user_ids=("7",)), database)
    run(database, "recorder")
    assert seen("recorder") == ["browser"]


def test_what_is_of_nobody_stays_whoever_is_forgotten(configure, database):
    configure("outbox", recorder={})
    track("nobody's")
    assert forget(Person(user_ids=("", "user-ada")), database).found.events == 0
    run(database, "recorder")
    assert seen("recorder") == ["nobody's"]


def test_a_batch_of_which_nothing_is_left_never_reaches_the_plugin(configure, database):
    configure("outbox", folder={})
    host.track(None, "hers", user_id="user-ada")
    take(database)
    mark(ADA, database)
    run(database, "folder")
    assert Recorder.seen == {}
    assert account(database, "folder") == {"accepted": 1, "discarded": 1}


def test_others_are_told_what_was_discarded(configure, database):
    configure("outbox", recorder={}, folder={})
    host.track(None, "hers", user_id="user-ada")
    heard = []

    def hear(lane, n, reason, using, **_):
        heard.append((lane, n, reason, using, connections[using].in_atomic_block))

    events_discarded.connect(hear)
    try:
        forget(ADA, database)
    finally:
        events_discarded.disconnect(hear)
    assert sorted(heard) == [
        (lane, 1, "of a person who has been forgotten", database, False) for lane in ("folder", "recorder")
    ]


# --- before and after ---


def test_what_turns_up_later_of_before_is_discarded(configure, database):
    configure("outbox", recorder={})
    before = now()
    forget(ADA, database)
    host.track(None, "late", user_id="user-ada", timestamp=before)
    run(database, "recorder")
    assert Recorder.seen == {}
    assert account(database, "recorder") == {"accepted": 1, "discarded": 1}


def test_who_comes_back_is_tracked_again(configure, any_database):
    configure("outbox", recorder={})
    host.track(None, "before", user_id="user-ada")
    forget(ADA, any_database)
    later = now() + LATER
    host.track(None, "waits", user_id="user-ada", timestamp=later)
    run(any_database, "recorder")
    assert seen("recorder") == ["waits"]


def test_who_comes_back_while_it_goes_on_is_left(configure, database, monkeypatch):
    monkeypatch.setattr(marks_module, "AHEAD", dt.timedelta(milliseconds=1))
    configure("outbox", recorder={})
    mark(ADA, database)
    later = now() + dt.timedelta(milliseconds=5)
    host.track(None, "back", user_id="user-ada", timestamp=later)
    wait_until(lambda: now() > later)
    assert sweep(ADA, database).events == 0
    run(database, "recorder")
    assert seen("recorder") == ["back"]


def test_what_a_wrong_clock_dated_ahead_is_erased_with_the_rest(configure, database):
    configure("outbox", recorder={})
    host.track(None, "ahead", user_id="user-ada", timestamp=now() + dt.timedelta(days=2))
    assert forget(ADA, database).found.events == 1
    assert_nothing_of_ada_is_kept()


def test_what_a_web_server_dated_a_moment_ahead_is_of_before(configure, database):
    """Its clock is not the database's, and somebody who deletes an account is forgotten within milliseconds."""
    configure("outbox", recorder={})
    forget(ADA, database)
    host.track(None, "on its way", user_id="user-ada", timestamp=now() + dt.timedelta(seconds=0.5))
    run(database, "recorder")
    assert Recorder.seen == {}


def test_a_second_time_moves_the_mark_on(configure, database, monkeypatch):
    monkeypatch.setattr(marks_module, "AHEAD", dt.timedelta(milliseconds=1))
    configure("outbox", recorder={})
    forget(ADA, database)
    host.track(None, "back", user_id="user-ada", timestamp=now() + dt.timedelta(milliseconds=2))
    wait_until(lambda: marks(database).at(("user", "user-ada")) < now() - dt.timedelta(milliseconds=5))
    assert forget(ADA, database).found.events == 1
    assert forget(ADA, database).found.events == 0


def test_dead_letters_that_are_sent_again_stay_forgotten(configure, database):
    """As a worker of before the mark, or an older version, may have left one behind."""
    configure("outbox", recorder={})
    Recorder.act["recorder"] = lambda event: (_ for _ in ()).throw(PermanentError("no"))
    host.track(None, "hers", user_id="user-ada")
    run(database, "recorder")
    mark(ADA, database)
    Recorder.act.clear()
    Delivery.objects.update(state="waiting", due_at=Now(), attempts=0)
    run(database, "recorder")
    assert Recorder.seen == {}
    assert account(database, "recorder") == {"accepted": 1, "discarded": 1}


def test_no_dead_letter_is_made_of_an_event_that_is_forgotten(configure, database):
    configure("outbox", recorder={"MAX_ATTEMPTS": 1})
    Recorder.act["recorder"] = lambda event: (_ for _ in ()).throw(RetryableError("away"))
    with host.batch():
        for name, who in [("first", {}), ("hers", HERS["user"]), ("last", {})]:
            host.track(None, name, **who)
    take(database)
    mark(ADA, database)
    run(database, "recorder")
    assert sorted(Delivery.objects.values_list("event_name", flat=True)) == ["first", "last"]
    assert account(database, "recorder") == {"accepted": 3, "dead": 2, "discarded": 1}


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/New_York"])
def test_a_site_without_time_zones(configure, database, settings, zone):
    if database == "mariadb" and zone != "UTC":
        pytest.skip("Django does not set the session's time zone there, and check W021 says so")
    settings.TIME_ZONE, settings.USE_TZ = zone, False
    configure("outbox", recorder={})
    forget(ADA, database)
    for name, seconds in [("before", -5), ("after", 5)]:
        host.track(None, name, user_id="user-ada", timestamp=now() + dt.timedelta(seconds=seconds))
    run(database, "recorder")
    assert seen("recorder") == ["after"]


def test_a_database_session_in_another_time_zone(configure, any_database):
    """As MySQL's and MariaDB's are, where the server is not set to UTC."""
    configure("outbox", recorder={})
    if connections[any_database].vendor == "mysql":
        with connections[any_database].cursor() as cursor:
            cursor.execute("SET time_zone = '-05:00'")
    try:
        forget(ADA, any_database)
        host.track(None, "before", user_id="user-ada", timestamp=now() - dt.timedelta(seconds=5))
        host.track(None, "after", user_id="user-ada", timestamp=now() + dt.timedelta(seconds=5))
        run(any_database, "recorder")
    finally:
        connections[any_database].close()
    assert seen("recorder") == ["after"]


def test_only_a_digest_is_kept(database):
    forget(ADA, database)
    kept = set(Forgotten.objects.values_list("digest", flat=True))
    assert kept == {
        sha256(b"user\0user-ada").hexdigest(),
        sha256(b"anonymous\0browser-ada").hexdigest(),
    }


def test_marks_are_committed_before_anything_is_deleted(configure, database):
    configure("outbox", recorder={})
    host.track(None, "hers", user_id="user-ada")
    with pytest.raises(RuntimeError, match="durable"), transaction.atomic(database):
        forget(ADA, database)
    assert Envelope.objects.count() == 1


# --- what the process knows of marks ---


def test_a_claim_costs_one_query_more(configure, database):
    configure("outbox", recorder={})
    forget(ADA, database)
    marks(database)
    with CaptureQueriesContext(connections[database]) as queries:
        assert marks(database) is marks(database)
    assert len(queries) == 2


def test_a_child_knows_marks_of_its_own(configure, database):
    """After a fork it goes on with what its parent knew, and sees what comes later."""
    mark(ADA, database)
    marks(database)
    connections.close_all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that other tests have left
        child = os.fork()
    if child == 0:
        status = 1
        try:
            mark(Person(user_ids=("user-bea",)), database)
            status = 0 if marks(database).at(("user", "user-ada")) else 2
            connections.close_all()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert marks(database).at(("user", "user-bea"))


def test_marks_of_other_processes_are_seen(configure, database):
    known = marks(database)
    Forgotten.objects.create(digest=marks_module.digest(("user", "user-ada")))
    assert known.at(("user", "user-ada")) is None
    assert marks(database).at(("user", "user-ada")) is not None


def test_marks_that_become_visible_late_are_seen(configure, database):
    """Ids are given in one order, and may be committed in another."""
    mark(ADA, database)
    last = Forgotten.objects.latest("id").id
    later = Forgotten(id=last + 2, digest=marks_module.digest(("user", "user-bea")))
    later.save(force_insert=True)
    assert marks(database).at(("user", "user-bea"))
    Forgotten(id=last + 1, digest=marks_module.digest(("user", "user-eve"))).save(force_insert=True)
    assert marks(database).at(("user", "user-eve"))


def test_the_marks_of_somebody_with_many_ids_are_seen_late(configure, database):
    mark(ADA, database)
    last = Forgotten.objects.latest("id").id
    Forgotten(id=last + 151, digest=marks_module.digest(("user", "user-bea"))).save(force_insert=True)
    assert marks(database).at(("user", "user-bea"))
    digests = [marks_module.digest(("user", f"user-{number}")) for number in range(150)]
    rows = [Forgotten(id=last + number, digest=digest) for number, digest in enumerate(digests, 1)]
    Forgotten.objects.bulk_create(rows)
    assert all(marks(database).at(("user", f"user-{number}")) for number in range(150))


def test_marks_are_forgotten_with_their_table(configure, database):
    mark(ADA, database)
    Forgotten.objects.all().delete()
    assert marks(database).at(("user", "user-ada")) is None
    Forgotten(id=1, digest=marks_module.digest(("user", "user-bea"))).save(force_insert=True)
    assert marks(database).at(("user", "user-bea"))
    assert marks(database).at(("user", "user-ada")) is None


@pytest.mark.parametrize("number", [marks_module.WINDOW - 1, marks_module.WINDOW + 50])
def test_many_marks_are_all_known(database, number):
    people = [f"user-{each}" for each in range(number)]
    mark(Person(user_ids=tuple(people[:50])), database)
    mark(Person(user_ids=tuple(people[50:])), database)
    marks_module._known.clear()
    for first in (marks(database), marks(database)):
        assert all(first.at(("user", id_)) for id_ in people)


# --- workers ---


class Worker(threading.Thread):
    """Takes one step of a lane; its plugin waits in the middle until it may go on."""

    def __init__(self, database: str, lane: str, error: Exception | None = None) -> None:
        super().__init__(daemon=True)
        self.database, self.lane, self.error = database, lane, error
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        Recorder.act[lane] = self._act
        take(database)

    def _act(self, argument) -> None:
        self.begun.set()
        assert self.may_go_on.wait(30)
        if self.error:
            raise self.error

    def run(self) -> None:
        try:
            step(host.registry.runners[self.lane], self.database)
        finally:
            connections.close_all()

    def __enter__(self) -> Worker:
        self.start()
        assert self.begun.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.may_go_on.set()
        self.join(30)

    def ends(self, seconds: float) -> None:
        """Instead of sleeping: what it held is then finished."""
        self.may_go_on.set()
        self.join(30)


def test_what_a_worker_holds_is_waited_for(configure, any_database):
    configure("outbox", folder={})
    track("before")
    host.track(None, "hers", user_id="user-ada")
    with Worker(any_database, "folder") as worker:
        said = []
        done = forget(ADA, any_database, sleep=worker.ends, progress=said.append)
        assert not worker.is_alive()
    assert done.complete
    assert said == ["waiting for workers to finish 1 deliveries that they hold"]
    assert_nothing_of_ada_is_kept()
    assert account(any_database, "folder") == {"accepted": 2, "delivered": 2}


def test_a_claim_that_has_read_the_person_and_is_not_committed_yet_is_waited_for(configure, any_database, monkeypatch):
    """Its worker would write the person down again if the event fails, after all was erased."""
    configure("outbox", folder={"MAX_ATTEMPTS": 1})
    host.track(None, "hers", user_id="user-ada")
    take(any_database)
    has_read, may_commit = threading.Event(), threading.Event()
    read = lanes._read

    def slowly(found) -> None:
        read(found)
        has_read.set()
        assert may_commit.wait(30)

    monkeypatch.setattr(lanes, "_read", slowly)
    # Marked at the last moment: this worker's claim has begun, and is not seen by anybody.
    monkeypatch.setattr(work, "marks", lambda using: Marks())
    worker = Worker(any_database, "folder", PermanentError("no"))
    worker.may_go_on.set()
    done = []

    def forget_her() -> None:
        try:
            done.append(forget(ADA, any_database))
        finally:
            connections.close_all()

    forgetting = threading.Thread(target=forget_her, daemon=True)
    worker.start()
    assert has_read.wait(30)
    forgetting.start()
    forgetting.join(0.5)
    assert forgetting.is_alive()
    may_commit.set()
    worker.join(30)
    forgetting.join(30)
    assert done[0].complete
    assert_nothing_of_ada_is_kept()
    assert account(any_database, "folder") == {"accepted": 1, "discarded": 1}


@pytest.mark.parametrize("error", [RetryableError("away"), PermanentError("no"), RuntimeError("broken")], ids=repr)
def test_what_fails_in_a_workers_hands_meanwhile_is_erased_too(configure, any_database, error):
    configure("outbox", recorder={"MAX_ATTEMPTS": 1})
    with host.batch():
        host.track(None, "hers", user_id="user-ada")
        track("another's")
    with Worker(any_database, "recorder", error) as worker:
        done = forget(ADA, any_database, sleep=worker.ends)
    assert done.complete
    assert_nothing_of_ada_is_kept()
    Recorder.act.clear()
    Delivery.objects.update(state="waiting")
    rounds(any_database, "recorder", 3)
    assert seen("recorder") == ["another's"]
    assert account(any_database, "recorder") == {"accepted": 2, "delivered": 1, "discarded": 1}


def test_an_event_that_a_worker_holds_on_its_own_is_waited_for(configure, database):
    configure("outbox", recorder={})
    Recorder.act["recorder"] = lambda event: (_ for _ in ()).throw(RuntimeError("not yet"))
    host.track(None, "hers", user_id="user-ada")
    rounds(database, "recorder")
    make_due()
    with Worker(database, "recorder", RuntimeError("again")) as worker:
        assert sweep(ADA, database).in_hand == 1
        assert forget(ADA, database, sleep=worker.ends).complete
    assert account(database, "recorder") == {"accepted": 1, "discarded": 1}
    assert not Delivery.objects.exists()


def test_a_worker_that_does_not_end_is_not_waited_for_without_end(configure, database):
    configure("outbox", recorder={})
    host.track(None, "hers", user_id="user-ada")
    slept = []
    with Worker(database, "recorder"):
        done = forget(ADA, database, patience=10, sleep=slept.append)
    assert (done.complete, done.still_held) == (False, 1)
    assert 10 <= sum(slept) < 15
    assert forget(ADA, database).complete


def test_who_claims_later_is_not_waited_for(configure, database):
    configure("outbox", recorder={}, folder={})
    track("another's")
    with Worker(database, "recorder") as first, Worker(database, "folder") as second:
        second.token, _ = Delivery.objects.order_by("lane").values_list("token", flat=True)
        Delivery.objects.filter(lane="folder").update(token=None)  # nobody has claimed it yet

        def sleep(seconds: float) -> None:
            Delivery.objects.filter(lane="folder").update(token=second.token)
            first.ends(seconds)

        assert forget(ADA, database, sleep=sleep).complete
        assert second.is_alive()


def test_a_worker_whose_lease_is_over_writes_nothing_down(configure, database):
    configure("outbox", recorder={})
    host.track(None, "hers", user_id="user-ada")
    with Worker(database, "recorder", PermanentError("too late")):

        def lapse(seconds: float) -> None:
            Delivery.objects.update(due_at=Now() - dt.timedelta(seconds=1))

        assert forget(ADA, database, sleep=lapse).complete
    assert_nothing_of_ada_is_kept()
    Recorder.act.clear()
    rounds(database, "recorder", 2)
    assert account(database, "recorder") == {"accepted": 1, "discarded": 1}


def test_a_worker_whose_lease_was_over_before_writes_nothing_down_either(configure, any_database):
    """It sleeps, and nobody has taken over."""
    configure("outbox", recorder={})
    host.track(None, "hers", user_id="user-ada")
    with Worker(any_database, "recorder", PermanentError("too late")):
        Delivery.objects.update(due_at=Now() - dt.timedelta(seconds=1))
        assert forget(ADA, any_database).complete
    assert_nothing_of_ada_is_kept()
    assert account(any_database, "recorder") == {"accepted": 1, "waiting": 1}
    Recorder.act.clear()
    rounds(any_database, "recorder", 2)
    assert account(any_database, "recorder") == {"accepted": 1, "discarded": 1}


def test_it_ends_while_visitors_go_on(configure, any_database, monkeypatch):
    configure("outbox", recorder={})
    host.track(None, "hers", user_id="user-ada")
    read, visits = erasing._envelopes, iter(range(50))

    def read_slowly(rows):
        assert next(visits, None) is not None, "it goes after what comes meanwhile"
        track("a visitor's")
        return read(rows)

    monkeypatch.setattr(erasing, "_envelopes", read_slowly)
    assert forget(ADA, any_database).found.events == 1


# --- what was said of it ---


def test_reasons_do_not_name_the_person_any_more(configure, any_database):
    """A failure of a batch is the reason of all its events."""
    configure("outbox", recorder={}, folder={"MAX_ATTEMPTS": 1})
    Recorder.act["folder"] = Recorder.act["recorder"] = lambda argument: (_ for _ in ()).throw(
        RetryableError("user-ada, user-ada2 and user-bea are unknown")
    )
    with host.batch():
        host.track(None, "hers", user_id="user-ada")
        host.track(None, "another's", user_id="user-bea")
    run(any_database, "folder")
    step(host.registry.runners["recorder"], any_database)
    Lane.objects.create(name="folder", trouble="asks to wait: user-ada is one too many")
    forget(ADA, any_database)
    reasons = set(Delivery.objects.values_list("state", "reason"))
    said = "RetryableError: …, user-ada2 and user-bea are unknown"
    assert reasons == {("waiting", said), ("dead", said)}
    assert Lane.objects.get().trouble == "asks to wait: … is one too many"


# --- what can't be read ---


def test_what_a_newer_version_wrote_is_reported_and_stays(configure, database):
    configure("outbox", recorder={}, folder={})
    track("newer")
    Envelope.objects.update(version=99)
    done = forget(ADA, database)
    assert not done.complete
    assert [(one.table, one.lanes, one.problem) for one in done.found.unreadable] == [
        ("envelope", ("recorder", "folder"), "of a newer version")
    ]
    assert Envelope.objects.count() == 1


def test_chunks_of_a_newer_version_stay_as_they_are(configure, database):
    configure("outbox", recorder={})
    host.track(None, "newer", user_id="user-ada")
    take(database)
    Delivery.objects.update(version=99)
    before = payloads()
    assert [one.table for one in forget(ADA, database).found.unreadable] == ["chunk"]
    assert payloads() == before


def test_a_damaged_payload_is_reported_if_it_names_the_person(configure, database):
    configure("outbox", recorder={})
    for payload in (b'[{"user_id":"user-ada"', b'[{"user_id":"user-bea"'):
        Delivery.objects.create(lane="recorder", payload=payload, version=1, n=1, state="dead")
    unreadable = forget(ADA, database).found.unreadable
    assert [(one.table, one.lanes) for one in unreadable] == [("delivery", ("recorder",))]


@pytest.mark.parametrize(
    "id_", ["42", 'Zoë "Z" \\ Ünal', "emoji \U0001f600", "tab\tid"], ids=["plain", "quotes", "astral", "control"]
)
def test_a_damaged_message_of_the_broker_is_reported_if_it_names_the_person(configure, database, id_):
    configure("outbox", recorder={})
    for who in (id_, "420"):
        payload = encode([{"user_id": who}]).decode()
        assert ingest(1, "no id", "recorder", 1, payload, database)
    unreadable = forget(Person(user_ids=(id_,)), database).found.unreadable
    assert [(one.table, one.lanes) for one in unreadable] == [("envelope", ("recorder",))]


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(b'{"type":"track","name":"\xff","user_id":"user-ada"}', id="no UTF-8"),
        pytest.param(b'{"user_id":"user-ada","visitor_ids":{"piwik":"\xff"}}', id="no UTF-8 in an id"),
        pytest.param(b'["user-ada"]', id="no object"),
    ],
)
def test_an_event_that_is_none_is_erased_if_it_names_the_person(configure, any_database, event):
    """And takes no other with it."""
    configure("outbox", recorder={})
    with host.batch():
        host.track(None, "another's", user_id="user-bea")
        host.track(None, "hers", user_id="user-ada")
    before = bytes(Envelope.objects.get().payload)
    Envelope.objects.update(payload=before[:-1] + b"," + event + b"]", n=3)
    assert forget(ADA, any_database).found.events == 2
    assert_nothing_of_ada_is_kept()
    run(any_database, "recorder")
    assert seen("recorder") == ["another's"]


def test_an_id_that_is_a_number_is_the_same_one(configure, database):
    configure("outbox", recorder={})
    host.track(None, "hers", user_id="42")
    Envelope.objects.update(payload=bytes(Envelope.objects.get().payload).replace(b'"42"', b"42"))
    assert forget(Person(user_ids=("4",)), database).found.events == 0
    assert forget(Person(user_ids=("42",)), database).found.events == 1


def test_an_event_that_can_not_be_read_is_erased_by_its_ids(configure, database):
    configure("outbox", recorder={})
    for who in ("user-ada", "user-bea"):
        payload = b'[{"user_id":"%s","type":"of another version"}]' % who.encode()
        Envelope.objects.create(
            envelope_id=f"00000000-0000-4000-8000-0000000000{who[-2:].encode().hex()[:2]}",
            version=1, lanes="recorder", n=1, payload=payload,
        )  # fmt: skip
    assert forget(ADA, database).found.events == 1
    assert b"user-bea" in payloads()
    assert_nothing_of_ada_is_kept()


def test_an_envelope_that_says_another_number_keeps_it(configure, database):
    """Its lanes find it dead, with as many events as it says: the accounts stay right."""
    configure("outbox", recorder={})
    host.track(None, "hers", user_id="user-ada")
    Envelope.objects.update(n=3)
    assert forget(ADA, database).found.events == 1
    assert_nothing_of_ada_is_kept()
    rounds(database, "recorder")
    assert account(database, "recorder") == {"accepted": 3, "dead": 3}


# --- looking, and suggestions ---


def test_looking_changes_nothing(configure, database):
    configure("outbox", recorder={})
    Chunk.objects.create(n=1, payload=b"[null]")  # its worker was killed before it could sweep
    host.track(None, "hers", user_id="user-ada")
    before = payloads()
    assert look(ADA, database).envelopes == 1
    assert payloads() == before
    assert not Forgotten.objects.exists()


def test_other_ids_of_the_same_events_are_suggested(configure, database):
    configure("outbox", recorder={"PLUGIN": "visitors"})
    host.track(None, "hers", user_id="user-ada", anonymous_id="another browser")
    host.alias(None, "her old name", "user-ada")
    host.track(None, "another's", user_id="user-bea", anonymous_id="browser-bea")
    assert look(ADA, database).others == {
        ("anonymous", "another browser"),
        ("anonymous", "her old name"),
        ("user", "her old name"),
    }


# --- plugins ---


class Memory:
    """What a sample plugin is told to do when it is asked to forget."""

    def __init__(self, monkeypatch, answer) -> None:
        self.people: list[Person] = []

        def forget(plugin, person):
            self.people.append(person)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        monkeypatch.setattr(Recorder, "forget", forget, raising=False)


def answers() -> list[tuple[str, str, str]]:
    return [tuple(answer) for answer in ask(ADA, host.registry.runners)]


def test_each_plugin_is_asked_and_closed_again(configure, monkeypatch):
    configure(recorder={}, folder={})
    memory = Memory(monkeypatch, "All is gone.")
    closed = []
    monkeypatch.setattr(Recorder, "close", lambda plugin: closed.append(plugin.alias), raising=False)
    assert answers() == [("recorder", "done", "All is gone."), ("folder", "done", "All is gone.")]
    assert memory.people == [ADA, ADA]
    assert closed == ["recorder", "folder"]


def test_a_plugin_that_is_at_work_in_this_process_stays_open(configure, database, monkeypatch):
    configure("outbox", recorder={})
    track("at work")
    run(database, "recorder")
    Memory(monkeypatch, "All is gone.")
    closed = []
    monkeypatch.setattr(Recorder, "close", lambda plugin: closed.append(plugin.alias), raising=False)
    assert answers() == [("recorder", "done", "All is gone.")]
    assert closed == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(NotImplementedError("Write to them."), ("by hand", "Write to them."), id="by hand"),
        pytest.param(RetryableError("away"), ("failed", "RetryableError: away"), id="away"),
        pytest.param(SystemExit(3), ("failed", "SystemExit: 3"), id="exit"),
    ],
)
def test_what_a_plugin_raises_keeps_no_other_from_being_asked(configure, monkeypatch, answer, expected):
    configure(recorder={}, folder={})
    Memory(monkeypatch, answer)
    assert answers() == [("recorder", *expected), ("folder", *expected)]


def test_a_plugin_whose_data_is_not_personal_is_not_asked(configure, monkeypatch):
    configure(recorder={}, folder={})
    memory = Memory(monkeypatch, "All is gone.")
    monkeypatch.setattr(host.registry.plugins["folder"].plugin, "personal_data", False, raising=False)
    assert [alias for alias, _, _ in answers()] == ["recorder"]
    assert memory.people == [ADA]


def test_no_answer_shows_a_secret(configure, monkeypatch):
    configure(configured={"URL": "https://example.com", "TOKEN": "s3cret"})
    plugin = host.registry.plugins["configured"].plugin
    for answer in (RuntimeError("with s3cret"), NotImplementedError("with s3cret")):

        def forget(person, answer=answer):
            raise answer

        monkeypatch.setattr(plugin, "forget", forget, raising=False)
        assert "s3cret" not in str(answers())


# --- whatever the mixture ---

EXAMPLES = int(os.environ.get("PLUGINHOST_TEST_EXAMPLES", "12"))
FATES = ("arrives", "is dead", "is tried again")
LANES = ("recorder", "folder")
event = st.tuples(st.sampled_from(sorted(WHO)), st.sampled_from(FATES))
action = st.one_of(
    st.tuples(st.just("flush"), st.lists(event, min_size=1, max_size=4)),
    st.tuples(st.just("take"), st.none()),
    st.tuples(st.sampled_from(LANES), st.integers(1, 3)),
)


def fail_as_fated(argument) -> None:
    fates = {each.name.partition(" ")[2] for each in (argument if hasattr(argument, "events") else [argument])}
    if "is dead" in fates:
        raise PermanentError("fated")
    if "is tried again" in fates:
        raise RuntimeError("fated")


def work_through(database: str, lane: str) -> None:
    """Until nothing of the lane is due, whatever was given up."""
    Recorder.act.clear()
    take(database)
    Delivery.objects.filter(lane=lane).update(state="waiting", due_at=Now() - dt.timedelta(seconds=1))
    while step(host.registry.runners[lane], database) is not None:
        make_due()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(action, min_size=2, max_size=10))
def test_whatever_has_happened_nothing_of_the_person_is_left_and_nobody_else_loses_anything(
    configure, database, actions
):
    clear()
    configure("outbox", recorder={"BATCH_SIZE": 2}, folder={"BATCH_SIZE": 3})
    runners = host.registry.runners
    numbers: dict[str, list[str]] = {"hers": [], "others": []}
    for what, how in actions:
        Recorder.act.update(dict.fromkeys(LANES, fail_as_fated))
        if what == "flush":
            with host.batch():
                for who, fate in how:
                    names = numbers["hers" if who in HERS else "others"]
                    names.append(f"{who}{len(numbers['hers']) + len(numbers['others'])} {fate}")
                    host.track(None, names[-1], **WHO[who])
        elif what == "take":
            take(database)
        else:
            make_due()
            steps = iter(range(how))  # it is told to stop in the middle of what it has claimed
            step(runners[what], database, lambda steps=steps: next(steps, None) is None)
    delivered = {lane: Counter(seen(lane)) for lane in LANES}

    done = forget(ADA, database)

    assert done.complete
    assert_nothing_of_ada_is_kept()
    total = sum(map(len, numbers.values()))
    for lane in LANES if total else ():
        work_through(database, lane)
        later = Counter(seen(lane)) - delivered[lane]
        assert set(later).isdisjoint(numbers["hers"])
        got = Counter(seen(lane))
        assert {name: got[name] for name in numbers["others"]} == dict.fromkeys(numbers["others"], 1)
        expected = {
            "accepted": total,
            "delivered": sum(got.values()),
            "discarded": total - sum(got.values()),
        }
        assert account(database, lane) == {outcome: n for outcome, n in expected.items() if n}
