"""``rename OLD NEW``: a lane follows its alias."""

from __future__ import annotations

import datetime as dt
import threading
from types import SimpleNamespace

import pytest
from django.db import connections
from django.db.models import F

from pluginhost import PermanentError, host
from pluginhost.delivery import accounts
from pluginhost.delivery.intake import take
from pluginhost.delivery.lanes import LeaseLost, claim
from pluginhost.delivery.settling import Outcome, settle
from pluginhost.models import Account, Chunk, Delivery, Envelope, Lane
from pluginhost.operations import renaming, steps
from pluginhost.operations.pausing import pause, paused
from pluginhost.workers.worker import drain
from tests.commands import as_json, command, fails
from tests.samples import Recorder
from tests.steps import account, make_due, raising, run, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)
OLD = {"old": {"PLUGIN": "recorder"}}
NEW = {"new": {"PLUGIN": "recorder"}}


def no_trace_of_old(database):
    for model in (Account, Delivery):
        assert not model.objects.filter(lane="old").exists()
    assert not Lane.objects.filter(name="old").exists()
    assert not any("old" in names.split(",") for names in Envelope.objects.values_list("lanes", flat=True))


def test_all_that_belongs_to_a_lane_follows(database, configure):
    configure("outbox", folder={}, **OLD)
    Recorder.act["old"] = raising(lambda: PermanentError("no"), "dead")
    track("delivered", "dead")
    drain(host.registry.runners, database)
    track("in a chunk", "in a chunk")
    take(database)
    track("in an envelope")
    days = sorted(Account.objects.filter(lane="old").values_list("day", "outcome"))
    pause("old", database, "they move")
    configure("outbox", folder={}, **NEW)

    assert command("rename", "old", "new") == "moved 4 events from old to new\n"

    no_trace_of_old(database)
    assert paused(database)["new"].paused_because == "they move"
    assert account(database, "new") == {"accepted": 5, "delivered": 1, "dead": 1, "waiting": 3}
    assert sorted(Account.objects.filter(lane="new").values_list("day", "outcome")) == days
    assert account(database, "folder") == {"accepted": 5, "delivered": 2, "waiting": 3}
    command("resume", "new")
    drain(host.registry.runners, database)
    assert sorted(seen("new")) == ["in a chunk", "in a chunk", "in an envelope"]
    assert account(database, "new") == {"accepted": 5, "delivered": 4, "dead": 1}
    assert sorted(seen("folder")) == ["dead", "delivered", "in a chunk", "in a chunk", "in an envelope"]


def test_names_that_look_alike_are_left_alone(database, configure):
    plugins = {alias: {"PLUGIN": "recorder"} for alias in ("a-old", "old-a", "o_d", "folder")}
    configure("outbox", **plugins, **OLD)
    track("a")
    configure("outbox", **plugins, **NEW)
    command("rename", "old", "new")
    assert Envelope.objects.get().lanes.split(",") == ["a-old", "old-a", "o_d", "folder", "new"]
    command("rename", "o_d", "new", "--merge")
    assert Envelope.objects.get().lanes.split(",") == ["a-old", "old-a", "folder", "new"]


def test_envelopes_of_a_newer_version_follow_unread(database, configure):
    configure("outbox", **OLD)
    track("a")
    Envelope.objects.update(version=99, payload=b"?")
    configure("outbox", **NEW)
    assert as_json("rename", "old", "new") == {"moved": 1, "discarded": 0, "in_hand": 0}
    assert Envelope.objects.get().lanes == "new"


def test_it_may_be_run_again_for_what_came_since(database, configure):
    configure("outbox", **OLD)
    track("a")
    configure("outbox", **NEW)
    track("b")
    command("rename", "old", "new")
    configure("outbox", **OLD)  # a process with the settings of before
    track("c")
    take(database)
    configure("outbox", **NEW)
    assert command("rename", "old", "new") == "moved 1 event from old to new\n"
    no_trace_of_old(database)
    drain(host.registry.runners, database)
    assert account(database, "new") == {"accepted": 3, "delivered": 3}


def test_what_a_worker_holds_stays_and_both_lanes_balance(database, configure):
    configure("outbox", **OLD, folder={})
    track("held")
    take(database)
    runner = host.registry.runners["old"]
    held = claim(runner, database)
    track("waits")
    take(database)
    configure("outbox", **NEW, folder={})

    printed, error = fails("rename", "old", "new")

    assert printed == "moved 1 event from old to new\n"
    assert error == "a worker holds 1 event of old: run this again when it is done."
    assert account(database, "old") == {"accepted": 1, "waiting": 1}
    assert account(database, "new") == {"accepted": 1, "waiting": 1}
    settle(held, Outcome(held.items, 1), runner.plugin.lane)
    assert account(database, "old") == {"accepted": 1, "delivered": 1}
    assert command("rename", "old", "new") == "moved 0 events from old to new\n"
    no_trace_of_old(database)
    assert account(database, "new") == {"accepted": 2, "delivered": 1, "waiting": 1}


def test_who_let_its_lease_lapse_finishes_nothing_for_the_old_lane(database, configure):
    configure("outbox", **OLD)
    track("a")
    take(database)
    runner = host.registry.runners["old"]
    held = claim(runner, database)
    make_due()
    configure("outbox", **NEW)
    assert command("rename", "old", "new") == "moved 1 event from old to new\n"
    with pytest.raises(LeaseLost):
        settle(held, Outcome(held.items, 1), runner.plugin.lane)
    run(database, "new")
    no_trace_of_old(database)
    assert account(database, "new") == {"accepted": 1, "delivered": 1}


def test_lanes_that_hold_the_same_events(database, configure):
    configure("outbox", **OLD, **NEW)
    track("a", "b")
    take(database)
    track("c")
    Recorder.act["new"] = raising(lambda: PermanentError("no"), "a")

    _, error = fails("rename", "old", "new")
    assert error.startswith("old and new both hold the same 3 events, so new would deliver them twice. With --merge")
    assert account(database, "old") == {"accepted": 3, "waiting": 3}
    assert account(database, "new") == {"accepted": 3, "waiting": 3}

    text = command("rename", "old", "new", "--merge")
    assert "discarded 3 events that new holds too\n" in text
    assert "old is still enabled: it goes on receiving events\n" in text
    no_trace_of_old(database)
    drain({"new": host.registry.runners["new"]}, database)
    assert seen("new") == ["b", "c"]
    assert account(database, "new") == {"accepted": 6, "delivered": 2, "dead": 1, "discarded": 3}
    assert Chunk.objects.count() == 0


def test_a_half_finished_delivery_follows_as_it_is(database, configure):
    configure("outbox", **OLD)
    Recorder.act["old"] = raising(lambda: PermanentError("no"), "b")
    track("a", "b", "c", "d")
    take(database)
    Delivery.objects.update(done=F("done") + 2)
    configure("outbox", **NEW)
    renaming.rename("old", "new", database)
    run(database, "new")
    assert seen("new") == ["c", "d"]


def test_many_go_in_steps_and_balance_at_each(database, configure, monkeypatch):
    monkeypatch.setattr(steps, "STEP", 2)
    configure("outbox", **OLD)
    for _ in range(5):
        track("a")
        take(database)
    configure("outbox", **NEW)
    balances = []

    def look(n):
        balances.append((n, account(database, "old"), account(database, "new")))

    renaming.rename("old", "new", database, progress=look)

    assert balances == [
        (2, {"accepted": 3, "waiting": 3}, {"accepted": 2, "waiting": 2}),
        (4, {"accepted": 1, "waiting": 1}, {"accepted": 4, "waiting": 4}),
        (5, {}, {"accepted": 5, "waiting": 5}),
    ]


def test_troubles_follow_unless_the_new_lane_has_its_own(database, configure):
    configure("outbox", **NEW)
    Lane.objects.create(name="old", trouble="a hook hung")
    assert command("rename", "old", "new") == "moved 0 events from old to new\n"
    assert Lane.objects.get().trouble == "a hook hung"
    Lane.objects.create(name="old", trouble="another")
    command("rename", "old", "new")
    assert (Lane.objects.get().name, Lane.objects.get().trouble) == ("new", "a hook hung")


def test_what_is_counted_on_the_next_day_meanwhile_is_counted_once(database, configure, monkeypatch):
    if connections[database].vendor == "sqlite":
        pytest.skip("one writer at a time")
    configure("outbox", **OLD)
    track("a")
    take(database)
    track("b")
    tomorrow = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)
    owed, threads = renaming._owed, []

    def intake() -> None:
        Envelope.objects.using(database).update(lanes="old")
        with monkeypatch.context() as patch:
            patch.setattr(accounts, "dt", SimpleNamespace(UTC=dt.UTC, datetime=SimpleNamespace(now=lambda _: noon)))
            take(database)
        connections.close_all()

    noon = dt.datetime.combine(tomorrow, dt.time(12), dt.UTC)

    def meanwhile(*args):
        if not threads:
            threads.append(threading.Thread(target=intake))
            threads[0].start()
            threads[0].join(1)  # without the lock it is done in that time
        return owed(*args)

    monkeypatch.setattr(renaming, "_owed", meanwhile)
    renaming._move_accounts("old", "new", database)
    threads[0].join(15)
    for lane, n in accounts.read(database).items():
        assert accounts.balances(n), (lane, n)
    assert Account.objects.filter(lane="old", day=tomorrow).exists()


def test_a_pause_follows_into_a_row_of_its_own_and_into_one_with_a_trouble(database, configure):
    configure("outbox", **NEW)
    for trouble in ("", "a hook hung"):
        Lane.objects.all().delete()
        if trouble:
            Lane.objects.create(name="new", trouble=trouble)
        pause("old", database, "they move")
        renaming._move_pause("old", "new", database)
        row = Lane.objects.get()
        assert (row.name, row.paused_because, row.trouble) == ("new", "they move", trouble)
        assert row.paused_at is not None


def test_what_is_refused(database, configure):
    configure("outbox", **NEW)
    track("a")
    assert fails("rename", "new", "nwe")[1].startswith("'nwe' is not enabled. Did you mean 'new'? ")
    assert fails("rename", "new", "new")[1] == "OLD and NEW are the same lane."
    assert fails("rename", "older", "new")[1] == "there is no lane 'older'. The lanes are: new."
