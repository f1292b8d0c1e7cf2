"""What lanes do with deliveries: order, retry, bisection, dead letters, fencing, progress."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db.models import F
from django.db.models.functions import Now

from pluginhost import (
    PartialFailure,
    PermanentError,
    RetryableError,
    SkipEvent,
    UncertainError,
    host,
)
from pluginhost.delivery import accounts
from pluginhost.delivery.intake import take
from pluginhost.delivery.lanes import LeaseLost, claim
from pluginhost.delivery.settling import Outcome, settle, sweep_chunks
from pluginhost.delivery.work import step
from pluginhost.delivery.worker import drain
from pluginhost.models import Chunk, Delivery, Envelope
from tests.samples import Folder, Recorder

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


def track(*names: str) -> None:
    with host.batch():
        for name in names:
            host.track(None, name)


def seen(alias: str) -> list[str]:
    return [event.name for event in Recorder.seen.get(alias, [])]


def run(database: str, lane: str) -> Outcome | None:
    take(database)
    return step(host.registry.runners[lane], database)


def make_due(**values) -> None:
    Delivery.objects.filter(state="waiting").update(due_at=Now() - dt.timedelta(seconds=1), **values)


def account(database: str, lane: str) -> dict[str, int]:
    found = accounts.read(database)[lane]
    assert accounts.balances(found)
    return {outcome: n for outcome, n in found.items() if n}


def raising(error: Exception, *names: str):
    """Raise when an event of these names, or any event, is delivered."""

    def act(given) -> None:
        events = given if hasattr(given, "events") else [given]
        if not names or any(event.name in names for event in events):
            raise error

    return act


def test_a_lane_keeps_the_order_of_acceptance(database, configure):
    configure("outbox", recorder={}, folder={})
    names = [f"event {number}" for number in range(25)]
    for name in names:
        host.track(None, name)

    drain(host.registry.runners, database)

    assert seen("recorder") == seen("folder") == names


def test_envelopes_become_one_chunk_that_all_lanes_read(database, configure):
    configure("outbox", recorder={}, folder={})
    for number in range(5):
        host.track(None, f"event {number}")

    assert take(database) == 5

    assert list(Chunk.objects.values_list("n", flat=True)) == [5]
    assert list(Delivery.objects.order_by("lane").values_list("lane", "n")) == [("folder", 5), ("recorder", 5)]
    assert Envelope.objects.count() == 0


def test_chunks_are_limited_in_events(database, configure):
    configure("outbox", folder={})
    for _ in range(4):
        track(*["x"] * 200)

    take(database)

    assert list(Chunk.objects.order_by("id").values_list("n", flat=True)) == [400, 400]


def test_envelopes_and_chunks_are_limited_in_bytes(database, configure):
    configure("outbox", folder={})
    with host.batch():
        for _ in range(80):
            host.track(None, "large", {"text": "x" * 30_000})

    sizes = [len(bytes(payload)) for payload in Envelope.objects.values_list("payload", flat=True)]
    take(database)

    assert len(sizes) == 3
    assert max(sizes) <= 1024 * 1024 + 2
    assert max(len(bytes(payload)) for payload in Chunk.objects.values_list("payload", flat=True)) <= 1024 * 1024 + 2
    drain(host.registry.runners, database)
    assert len(seen("folder")) == 80


def test_a_lane_that_fails_does_not_hold_up_the_others(database, configure):
    configure("outbox", recorder={}, folder={})
    Recorder.act["recorder"] = raising(RetryableError("away"))
    track("a", "b")

    drain(host.registry.runners, database)

    assert seen("folder") == ["a", "b"]
    assert account(database, "recorder") == {"accepted": 2, "waiting": 2}
    assert account(database, "folder") == {"accepted": 2, "delivered": 2}


@pytest.mark.parametrize("lane", ["recorder", "folder"])
def test_a_retryable_error_defers_the_rest_and_it_arrives_later(database, configure, lane):
    configure("outbox", **{lane: {"RETRY_DELAY": 60}})
    Recorder.act[lane] = raising(RetryableError("away"), "b")
    track("a", "b", "c")

    outcome = run(database, lane)

    assert outcome.deferred.reason == "RetryableError: away"
    waiting = Delivery.objects.annotate(wait=F("due_at") - Now()).get()
    assert 25 < waiting.wait.total_seconds() <= 60
    assert (waiting.attempts, waiting.token, waiting.reason) == (1, None, "RetryableError: away")
    assert seen(lane) == (["a"] if lane == "recorder" else [])
    assert step(host.registry.runners[lane], database) is None, "it is not due"

    Recorder.act.clear()
    make_due()
    run(database, lane)
    assert seen(lane) == ["a", "b", "c"]
    assert account(database, lane) == {"accepted": 3, "delivered": 3}


def test_retry_after_is_honoured_capped_and_no_attempt(database, configure):
    configure("outbox", folder={"RETRY_DELAY": 1})
    Recorder.act["folder"] = raising(RetryableError("slow down", retry_after=300))
    track("a")

    run(database, "folder")

    waiting = Delivery.objects.annotate(wait=F("due_at") - Now()).get()
    assert 290 < waiting.wait.total_seconds() <= 300
    assert waiting.attempts == 0

    Recorder.act["folder"] = raising(RetryableError("slow down", retry_after=10**9))
    make_due()
    run(database, "folder")
    waiting = Delivery.objects.annotate(wait=F("due_at") - Now()).get()
    assert 3590 < waiting.wait.total_seconds() <= 3600


def test_the_delay_doubles_up_to_its_limit(database, configure):
    configure("outbox", folder={"RETRY_DELAY": 10, "RETRY_MAX_DELAY": 35})
    Recorder.act["folder"] = raising(RetryableError("away"))
    track("a")
    take(database)
    waits = []
    for _ in range(4):
        make_due()
        run(database, "folder")
        waits.append(Delivery.objects.annotate(wait=F("due_at") - Now()).get().wait.total_seconds())

    for wait, limit in zip(waits, [10, 20, 35, 35], strict=True):
        assert limit / 2 - 1 < wait <= limit


def test_a_permanent_error_is_a_dead_letter_with_its_reason(database, configure, caplog):
    configure("outbox", recorder={})
    Recorder.act["recorder"] = raising(PermanentError("no such goal"), "b")
    track("a", "b", "c")

    run(database, "recorder")

    letter = Delivery.objects.get()
    assert (letter.state, letter.n, letter.event_name) == ("dead", 1, "b")
    assert letter.reason == "PermanentError: no such goal"
    assert len(letter.message_id) == 36
    assert letter.message_id in caplog.text
    assert seen("recorder") == ["a", "c"]
    assert account(database, "recorder") == {"accepted": 3, "delivered": 2, "dead": 1}
    assert Chunk.objects.count() == 0


def test_one_bad_event_of_a_batch_is_found_by_halving(database, configure):
    configure("outbox", folder={})
    Recorder.act["folder"] = raising(PermanentError("400"), "event 77")
    track(*[f"event {number}" for number in range(200)])

    run(database, "folder")

    assert Delivery.objects.get().event_name == "event 77"
    assert len(seen("folder")) == 199
    assert len(Folder.batches) <= 2 * 8 + 1
    assert account(database, "folder") == {"accepted": 200, "delivered": 199, "dead": 1}


def test_an_unexplained_error_is_retried_whole_before_single_events_are_suspected(database, configure, caplog):
    configure("outbox", folder={})
    Recorder.act["folder"] = raising(KeyError("colour"), "bad")
    track("a", "bad", "c", "d")
    take(database)

    for attempt in range(2):
        make_due()
        run(database, "folder")
        assert seen("folder") == [], f"attempt {attempt} is of the whole batch"
    make_due()
    run(database, "folder")

    assert seen("folder") == ["a", "c", "d"]
    waiting = Delivery.objects.get()
    assert (waiting.state, waiting.event_name, waiting.n) == ("waiting", "bad", 1)
    assert "KeyError" in caplog.text
    assert "Traceback" in caplog.text


def test_a_receiver_that_is_away_is_not_asked_for_each_event(database, configure):
    configure("outbox", folder={}, recorder={})
    Recorder.act["folder"] = Recorder.act["recorder"] = raising(OSError("no route"))
    track(*["x"] * 300)
    take(database)
    make_due(attempts=10)

    run(database, "folder")
    assert len(Folder.batches) <= 11

    calls = []
    Recorder.act["recorder"] = lambda event: calls.append(event) or raising(OSError("no route"))(event)
    run(database, "recorder")
    assert len(calls) <= 11
    assert account(database, "recorder") == {"accepted": 300, "waiting": 300}


def test_the_last_attempt_makes_dead_letters_of_single_events(database, configure):
    configure("outbox", folder={"MAX_ATTEMPTS": 3}, recorder={"MAX_ATTEMPTS": 3})
    Recorder.act["folder"] = Recorder.act["recorder"] = raising(RetryableError("away"))
    track("a", "b")
    take(database)

    for _ in range(8):
        make_due()
        run(database, "folder")
        run(database, "recorder")

    for lane in ("folder", "recorder"):
        letters = Delivery.objects.filter(lane=lane)
        assert sorted(letters.values_list("event_name", "state", "n")) == [("a", "dead", 1), ("b", "dead", 1)]
        assert account(database, lane) == {"accepted": 2, "dead": 2}
    assert Chunk.objects.count() == 0


def test_an_event_that_holds_up_the_others_leaves_them(database, configure):
    configure("outbox", recorder={})
    Recorder.act["recorder"] = raising(RetryableError("never ready"), "stuck")
    track("stuck", "b", "c")
    take(database)

    for _ in range(3):
        make_due()
        run(database, "recorder")
    assert seen("recorder") == []
    make_due()
    run(database, "recorder")
    make_due()
    run(database, "recorder")

    assert seen("recorder") == ["b", "c"]
    assert Delivery.objects.get().event_name == "stuck"


def test_partial_failure_names_those_that_failed(database, configure):
    configure("outbox", folder={})

    def act(batch) -> None:
        ids = {event.name: event.message_id for event in batch}
        raise PartialFailure(
            {
                ids["dead"]: PermanentError("no"),
                ids["later"]: RetryableError("busy"),
                ids["skipped"]: SkipEvent("not for me"),
            }
        )

    Recorder.act["folder"] = act
    track("fine", "dead", "later", "skipped")
    run(database, "folder")

    assert sorted(Delivery.objects.values_list("event_name", "state")) == [("dead", "dead"), ("later", "waiting")]
    assert account(database, "folder") == {"accepted": 4, "delivered": 1, "skipped": 1, "dead": 1, "waiting": 1}


def test_skipped_events_are_counted_and_gone(database, configure):
    configure("outbox", recorder={}, folder={})
    Recorder.act["recorder"] = raising(SkipEvent("not for me"), "b")
    Recorder.act["folder"] = raising(SkipEvent("not for me"))
    track("a", "b")

    drain(host.registry.runners, database)

    assert account(database, "recorder") == {"accepted": 2, "delivered": 1, "skipped": 1}
    assert account(database, "folder") == {"accepted": 2, "skipped": 2}


def test_a_plugin_that_needs_identity_skips_events_without_a_person(database, configure, monkeypatch):
    configure("outbox", recorder={})
    monkeypatch.setattr(Recorder, "needs_identity", True)

    host.track(None, "nobody")
    host.track(None, "somebody", anonymous_id="a1")
    drain(host.registry.runners, database)

    assert seen("recorder") == ["somebody"]
    assert account(database, "recorder") == {"accepted": 2, "delivered": 1, "skipped": 1}


@pytest.mark.parametrize(("choice", "state"), [("dead", "dead"), ("resend", "waiting")])
def test_an_uncertain_event_is_treated_as_the_project_says(database, configure, monkeypatch, choice, state):
    configure("outbox", recorder={"ON_UNCERTAIN": choice})
    monkeypatch.setattr(Recorder, "dedupes", False)
    Recorder.act["recorder"] = raising(UncertainError("no answer"))
    track("a")

    run(database, "recorder")

    assert Delivery.objects.get().state == state


def test_an_uncertain_event_is_resent_where_the_receiver_dedupes(database, configure):
    configure("outbox", recorder={"ON_UNCERTAIN": "dead"})
    Recorder.act["recorder"] = raising(UncertainError("no answer"))
    track("a")

    run(database, "recorder")

    assert Delivery.objects.get().state == "waiting"


@pytest.mark.parametrize(
    ("choice", "delivered", "dead"), [("dead", ["b", "c"], ["a"]), ("resend", ["a", "b", "c"], [])]
)
def test_a_kill_in_mid_request_counts_as_uncertain(database, configure, monkeypatch, choice, delivered, dead):
    configure("outbox", recorder={"ON_UNCERTAIN": choice})
    monkeypatch.setattr(Recorder, "dedupes", False)
    track("a", "b", "c")
    take(database)
    claim(host.registry.runners["recorder"], database)
    make_due()

    drain(host.registry.runners, database)

    assert seen("recorder") == delivered
    assert list(Delivery.objects.values_list("event_name", flat=True)) == dead


def test_who_lost_the_lease_finishes_nothing(database, configure):
    configure("outbox", folder={})
    track("a", "b")
    take(database)
    runner = host.registry.runners["folder"]
    slow = claim(runner, database)
    make_due()
    quick = claim(runner, database)

    with pytest.raises(LeaseLost):
        settle(slow, Outcome(slow.items, 2), runner.plugin.lane)
    with pytest.raises(LeaseLost):
        slow.keep()
    assert account(database, "folder") == {"accepted": 2, "waiting": 2}

    settle(quick, Outcome(quick.items, 2), runner.plugin.lane)
    assert account(database, "folder") == {"accepted": 2, "delivered": 2}
    with pytest.raises(LeaseLost):
        settle(slow, Outcome(slow.items, 2), runner.plugin.lane)
    assert account(database, "folder") == {"accepted": 2, "delivered": 2}


def test_a_claim_is_nobody_else_s_until_its_lease_ends(database, configure):
    configure("outbox", folder={"TIMEOUT": 20})
    track("a")
    take(database)
    runner = host.registry.runners["folder"]

    claim(runner, database)

    assert claim(runner, database) is None
    lease = Delivery.objects.annotate(wait=F("due_at") - Now()).get().wait.total_seconds()
    assert 35 < lease <= 40


def test_progress_within_a_chunk_survives_a_kill(database, configure, monkeypatch):
    configure("outbox", recorder={"BATCH_SIZE": 2})
    track("a", "b", "c", "d", "e")
    take(database)

    class Killed(BaseException):
        pass

    Recorder.act["recorder"] = raising(Killed(), "d")
    with pytest.raises(Killed):
        run(database, "recorder")
    assert Delivery.objects.get().done == 2
    assert account(database, "recorder") == {"accepted": 5, "delivered": 2, "waiting": 3}

    Recorder.act.clear()
    make_due()
    drain(host.registry.runners, database)
    assert seen("recorder") == ["a", "b", "c", "c", "d", "e"], "only the slice in hand is repeated"


def test_a_plugin_that_can_not_tell_two_from_one_gets_batches_of_one(database, configure, monkeypatch):
    monkeypatch.setattr(Recorder, "dedupes", False)
    configure("outbox", recorder={})
    runner = host.registry.runners["recorder"]
    assert runner.batch_size == 1

    monkeypatch.setattr(Recorder, "dedupes", True)
    assert runner.batch_size == 100


def test_a_worker_that_is_told_to_stop_gives_back_what_it_holds(database, configure):
    configure("outbox", recorder={"BATCH_SIZE": 1})
    track("a", "b", "c")
    take(database)

    step(host.registry.runners["recorder"], database, stopping=lambda: True)

    assert seen("recorder") == ["a"]
    waiting = Delivery.objects.get()
    assert (waiting.token, waiting.done, waiting.attempts) == (None, 1, 0)
    drain(host.registry.runners, database)
    assert seen("recorder") == ["a", "b", "c"]


def test_a_newer_version_waits_for_workers_that_know_it(database, configure):
    configure("outbox", folder={})
    track("old")
    track("new")
    newest = Envelope.objects.order_by("-id").first()
    Envelope.objects.filter(id=newest.pk).update(version=2)
    drain(host.registry.runners, database)
    assert seen("folder") == ["old"]
    assert Envelope.objects.count() == 1

    Envelope.objects.update(version=1)
    take(database)
    Delivery.objects.update(version=2)
    drain(host.registry.runners, database)
    assert seen("folder") == ["old"]
    Delivery.objects.update(version=1)
    drain(host.registry.runners, database)
    assert seen("folder") == ["old", "new"]


def test_a_stored_envelope_of_version_1_stays_readable(database, configure):
    """Written once and never changed: what a site has in its tables when it upgrades."""
    configure("outbox", folder={})
    Envelope.objects.create(
        envelope_id="0b0b6a0e-6d8e-4f1e-9a5e-0d9f0d1c2b3a",
        version=1,
        lanes="folder",
        n=1,
        payload=b'[{"type":"track","name":"signed_up","message_id":"01935f2e-8a00-7000-8000-000000000000",'
        b'"timestamp":"2026-11-21T12:00:00Z","properties":{"plan":"pro"},"user_id":"7",'
        b'"subject":{"model":"shop.Order","pk":"42"},"value":9.5,"context":{"ip":"192.0.2.0"},'
        b'"plugins":{"folder":{"colour":"red"}}}]',
    )

    drain(host.registry.runners, database)

    event = Folder.seen["folder"][0]
    assert (event.name, event.user_id, event.subject.pk, event.value) == ("signed_up", "7", "42", 9.5)
    assert event.timestamp == dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
    assert event.context.ip == "192.0.2.0"
    assert event.tuning("folder") == {"colour": "red"}


def test_a_lane_of_an_alias_that_was_removed_keeps_its_backlog(database, configure):
    configure("outbox", folder={}, recorder={})
    track("a")
    configure("outbox", folder={})
    drain(host.registry.runners, database)
    assert account(database, "recorder") == {"accepted": 1, "waiting": 1}

    configure("outbox", folder={}, recorder={})
    drain(host.registry.runners, database)
    assert account(database, "recorder") == {"accepted": 1, "delivered": 1}


def test_a_damaged_payload_is_dead_and_kept(database, configure):
    configure("outbox", folder={})
    track("a")
    track("b")
    take(database)
    chunk = Chunk.objects.get()
    Chunk.objects.filter(id=chunk.pk).update(payload=b'[{"type": "track", "na')
    track("c")

    drain(host.registry.runners, database)

    assert seen("folder") == ["c"]
    assert account(database, "folder") == {"accepted": 3, "delivered": 1, "dead": 2}
    assert Delivery.objects.get().reason.startswith("unreadable payload")
    assert Chunk.objects.count() == 1


def test_one_unreadable_event_is_dead_and_the_others_arrive(database, configure):
    configure("outbox", folder={}, recorder={})
    track("a", "b", "c")
    take(database)
    chunk = Chunk.objects.get()
    Chunk.objects.update(payload=bytes(chunk.payload).replace(b'"name":"b"', b'"name":null'))

    drain(host.registry.runners, database)

    assert seen("folder") == seen("recorder") == ["a", "c"]
    assert account(database, "folder") == {"accepted": 3, "delivered": 2, "dead": 1}
    assert Delivery.objects.filter(lane="folder").get().reason.startswith("unreadable")


def test_chunks_that_a_killed_worker_left_behind_are_swept(database, configure):
    configure("outbox", folder={})
    track("a")
    take(database)
    Chunk.objects.create(n=1, payload=b"[]")

    assert sweep_chunks(database) == 1
    assert Chunk.objects.count() == 1


def test_a_setup_that_fails_is_tried_again_with_the_batch(database, configure, monkeypatch):
    configure("outbox", folder={})
    calls = []

    def setup(self) -> None:
        calls.append(self.alias)
        if len(calls) == 1:
            raise OSError("no route")

    monkeypatch.setattr(Folder, "setup", setup)
    track("a")
    assert run(database, "folder").deferred.reason == "OSError: no route"
    make_due()
    run(database, "folder")

    assert seen("folder") == ["a"]
    assert calls == ["folder", "folder"]


def test_a_lane_does_not_track(database, configure, caplog):
    configure("outbox", recorder={}, STRICT=False)
    Recorder.act["recorder"] = lambda event: host.track(None, "echo")
    track("a")

    drain(host.registry.runners, database)

    assert seen("recorder") == ["a"]
    assert "called from within a hook of 'recorder'" in caplog.text


def test_no_secret_reaches_a_reason_or_a_log(database, configure, caplog):
    configure("outbox", configured={"URL": "https://example.com", "TOKEN": "s3cr3t-t0ken"})
    track("a")

    run(database, "configured")

    assert Delivery.objects.get().reason == "RuntimeError: could not post with ********"
    assert "could not post with" in caplog.text
    assert "s3cr3t-t0ken" not in caplog.text
