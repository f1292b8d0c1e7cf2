"""What lanes do with deliveries: order, chunks, claims and fencing, progress, versions, damage."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db.models import F
from django.db.models.functions import Now

from pluginhost import RetryableError, host
from pluginhost.delivery import intake, lanes
from pluginhost.delivery.intake import take
from pluginhost.delivery.lanes import LeaseLost, claim
from pluginhost.delivery.settling import Outcome, settle, sweep_chunks
from pluginhost.delivery.work import step
from pluginhost.models import Chunk, Delivery, Envelope
from pluginhost.workers.worker import drain
from tests.outbox_model import held_ids
from tests.samples import Folder, Recorder
from tests.steps import account, make_due, raising, run, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


@pytest.fixture
def database(any_database):
    return any_database


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


def test_one_transaction_takes_so_many_bytes_and_one_envelope_at_least(database, configure, monkeypatch):
    configure("outbox", folder={})
    for name in "abc":
        host.track(None, name)
    [length] = {len(bytes(payload)) for payload in Envelope.objects.values_list("payload", flat=True)}

    monkeypatch.setattr(intake, "TAKE_BYTES", 2 * length)
    assert take(database) == 2
    monkeypatch.setattr(intake, "TAKE_BYTES", 1)
    assert take(database) == 1
    assert take(database) == 0

    drain(host.registry.runners, database)
    assert seen("folder") == ["a", "b", "c"]


def test_one_transaction_takes_so_many_envelopes(database, configure, monkeypatch):
    configure("outbox", folder={})
    for name in "abcde":
        host.track(None, name)
    monkeypatch.setattr(intake, "TAKE", 2)
    monkeypatch.setattr(intake, "TAKE_ON_POSTGRESQL", 2)

    assert intake.most(database) == 2
    assert [take(database) for _ in range(4)] == [2, 2, 1, 0]

    drain(host.registry.runners, database)
    assert seen("folder") == ["a", "b", "c", "d", "e"]


def test_a_claim_reads_so_many_bytes_and_one_delivery_at_least(database, configure, monkeypatch):
    configure("outbox", folder={})
    for name in "abc":
        host.track(None, name)
        take(database)
    runner = host.registry.runners["folder"]

    monkeypatch.setattr(lanes, "CLAIM_BYTES", 2 * lanes.EVENT_BYTES)
    first = claim(runner, database)
    monkeypatch.setattr(lanes, "CLAIM_BYTES", 1)
    second = claim(runner, database)

    assert (len(first.deliveries), len(second.deliveries)) == (2, 1)
    assert len({*held_ids(first), *held_ids(second)}) == 3


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
    Recorder.act["recorder"] = raising(lambda: RetryableError("away"))
    track("a", "b")

    drain(host.registry.runners, database)

    assert seen("folder") == ["a", "b"]
    assert account(database, "recorder") == {"accepted": 2, "waiting": 2}
    assert account(database, "folder") == {"accepted": 2, "delivered": 2}


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

    Recorder.act["recorder"] = raising(Killed, "d")
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


def test_what_is_given_back_has_no_attempt_and_no_kill(database, configure):
    configure("outbox", folder={})
    track("a")
    take(database)

    for _ in range(3):
        claim(host.registry.runners["folder"], database).release()

    assert Delivery.objects.values_list("attempts", "kills", "token").get() == (0, 0, None)


def test_whoever_lost_the_lease_of_a_whole_batch_writes_nothing(database, configure):
    configure("outbox", folder={})
    track("a", "b")
    take(database)
    runner = host.registry.runners["folder"]
    late = claim(runner, database)
    make_due()
    again = claim(runner, database)

    with pytest.raises(LeaseLost):
        settle(late, Outcome(late.items, 2), runner.plugin.lane)
    assert account(database, "folder") == {"accepted": 2, "waiting": 2}
    settle(again, Outcome(again.items, 2), runner.plugin.lane)
    with pytest.raises(LeaseLost):
        settle(late, Outcome(late.items, 2), runner.plugin.lane)

    assert account(database, "folder") == {"accepted": 2, "delivered": 2}
    assert Chunk.objects.count() == 0


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
