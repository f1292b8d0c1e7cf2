"""A lane is paused and resumed; all lanes at one glance."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
from django.db import connections
from django.db.models.functions import Now
from django.utils import timezone

from pluginhost import PermanentError, RetryableError, host
from pluginhost.delivery import troubles
from pluginhost.delivery.intake import take
from pluginhost.delivery.lanes import claim
from pluginhost.delivery.settling import Outcome, settle
from pluginhost.models import Account, Delivery, Envelope, Lane
from pluginhost.operations import pausing
from pluginhost.operations.pausing import overview, pause, paused, resume
from pluginhost.workers.worker import drain
from tests.commands import as_json, command, fails
from tests.samples import Recorder
from tests.steps import account, make_due, raising, run, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


def test_a_paused_lane_delivers_nothing_and_no_other_lane_notices(database, configure):
    configure("outbox", recorder={}, folder={})
    pause("recorder", database, "they move")
    track("a")
    drain(host.registry.runners, database)
    assert (seen("recorder"), seen("folder")) == ([], ["a"])
    assert account(database, "recorder") == {"accepted": 1, "waiting": 1}
    assert Delivery.objects.get().attempts == 0

    resume("recorder", database)
    drain(host.registry.runners, database)
    assert seen("recorder") == ["a"]


def test_a_pause_stays_though_a_worker_clears_the_trouble_of_the_lane_at_that_moment(any_database, configure):
    configure("outbox", recorder={})
    troubles.mark("recorder", any_database, "the hook hung")
    troubles.reset()

    def clear() -> None:
        troubles.works("recorder", any_database)
        connections.close_all()

    worker = threading.Thread(target=clear)

    def meanwhile(execute, sql, *args):
        if "UPDATE" in sql and "INSERT" not in sql and worker.ident is None:
            worker.start()
            worker.join(0.5)  # it waits for the pause, if the pause has locked the row
        return execute(sql, *args)

    with connections[any_database].execute_wrapper(meanwhile):
        pause("recorder", any_database, "they move")
    worker.join()

    assert list(paused(any_database)) == ["recorder"]


def test_what_waits_is_as_old_as_its_acceptance_wherever_it_lies(any_database, configure):
    configure("outbox", recorder={})
    track("old", "old too")
    Envelope.objects.update(created=Now() - dt.timedelta(days=2))
    track("new")
    accepted = overview(any_database)[0].oldest_waiting
    assert timezone.now() - accepted > dt.timedelta(days=1, hours=23)

    take(any_database)

    assert overview(any_database)[0].oldest_waiting == accepted
    Recorder.act["recorder"] = raising(lambda: PermanentError("no"), "old")
    run(any_database, "recorder")
    assert Delivery.objects.get(event_name="old").created == accepted


def test_what_is_in_hand_when_the_pause_begins_is_finished(database, configure):
    configure("outbox", recorder={})
    track("a")
    take(database)
    runner = host.registry.runners["recorder"]
    held = claim(runner, database)
    pause("recorder", database)
    settle(held, Outcome(held.items, 1), runner.plugin.lane)
    assert account(database, "recorder") == {"accepted": 1, "delivered": 1}


def test_a_pause_keeps_its_beginning_and_takes_a_new_reason(database, configure):
    configure("outbox", recorder={})
    pause("recorder", database, "first")
    begun = paused(database)["recorder"].paused_at
    pause("recorder", database, "x" * 300 + "\0")
    now = paused(database)["recorder"]
    assert (now.paused_at, now.paused_because) == (begun, "x" * 200)
    assert abs((timezone.now() - begun).total_seconds()) < 60


def test_a_lane_about_which_nothing_is_left_to_say_has_no_row(database, configure):
    configure("outbox", recorder={}, folder={})
    Lane.objects.create(name="folder", trouble="a hook hung")
    for lane in ("recorder", "folder"):
        pause(lane, database)
        resume(lane, database)
    resume("recorder", database)
    assert list(Lane.objects.values_list("name", "paused_at", "trouble")) == [("folder", None, "a hook hung")]
    assert paused(database) == {}


def test_the_overview(database, configure):
    configure("outbox", folder={"RETRY_DELAY": 60}, recorder={})
    Recorder.act["folder"] = raising(lambda: RetryableError("away"))
    Recorder.act["recorder"] = raising(lambda: PermanentError("no"), "b")
    track("a", "b")
    run(database, "folder")
    run(database, "recorder")
    Lane.objects.create(name="removed", trouble="a hook hung", trouble_at=timezone.now())
    pause("recorder", database, "a test")
    before = timezone.now() - dt.timedelta(minutes=1)

    folder, recorder, removed = overview(database)

    assert (folder.lane, folder.enabled, folder.paused_at, folder.trouble) == ("folder", True, None, "")
    assert (folder.accepted, folder.waiting, folder.in_hand, folder.balances) == (2, 2, 0, True)
    assert before < folder.oldest_waiting <= timezone.now() < folder.next_due
    assert (recorder.delivered, recorder.dead, recorder.waiting) == (1, 1, 0)
    assert (recorder.paused_because, recorder.oldest_waiting, recorder.next_due) == ("a test", None, None)
    assert recorder.paused_at > before
    assert (removed.lane, removed.enabled, removed.trouble, removed.accepted) == ("removed", False, "a hook hung", 0)


def test_the_overview_knows_what_is_in_hand_and_what_no_worker_has_taken(database, configure):
    configure("outbox", recorder={"BATCH_SIZE": 1})
    track("a")
    take(database)
    runner = host.registry.runners["recorder"]
    claim(runner, database)
    (view,) = overview(database)
    assert (view.waiting, view.in_hand, view.next_due) == (1, 1, None)

    make_due()  # the lease is over
    (view,) = overview(database)
    assert (view.waiting, view.in_hand) == (1, 0)
    assert view.next_due <= timezone.now()

    Delivery.objects.all().delete()
    Account.objects.all().delete()
    track("b")
    (view,) = overview(database)
    assert (view.waiting, view.in_hand, view.next_due) == (1, 0, None)
    assert view.oldest_waiting is not None


def test_the_overview_needs_no_sound_setting(database, configure):
    configure("outbox", recorder={})
    track("a")
    configure("outbox", recoder={})
    assert [(view.lane, view.enabled, view.waiting) for view in pausing.overview(database)] == [("recorder", False, 1)]


# --- the commands ---


def test_pause_and_resume(database, configure):
    configure("outbox", recorder={})
    track("a")
    text = command("pause", "recorder", "--because", "they move")
    assert text.startswith("recorder is paused since 2")
    assert text.endswith("; waiting: 1 event\n")
    assert ", paused since 2" in command("lanes")
    assert command("resume", "recorder") == "recorder is resumed\n"
    assert command("resume", "recorder") == "recorder was not paused\n"


def test_pause_tells_of_what_is_in_hand(database, configure):
    configure("outbox", recorder={})
    track("a")
    take(database)
    claim(host.registry.runners["recorder"], database)
    assert "1 event in the hands of a worker are still delivered" in command("pause", "recorder")


@pytest.mark.parametrize("word", ["pause", "resume"])
def test_lanes_that_there_are_and_are_not(database, configure, word):
    configure("outbox", recorder={})
    track("a")
    configure("outbox", folder={})
    command(word, "recorder")
    assert fails(word, "foldr")[1].startswith("there is no lane 'foldr'. Did you mean 'folder'? ")


def test_lanes_at_one_glance(database, configure):
    configure("outbox", folder={}, recorder={})
    Recorder.act["folder"] = raising(lambda: RetryableError("away"))
    track("a")
    drain(host.registry.runners, database)
    Lane.objects.create(name="folder", trouble="a hook hung", trouble_at=timezone.now())
    command("pause", "folder", "--because", "they move")
    Account.objects.filter(lane="recorder", outcome="delivered").update(n=2)

    text = command("lanes")

    first, account_line, waits, trouble, second, *rest = text.splitlines()
    assert first.startswith("folder, paused since ")
    assert first.endswith(": they move")
    assert account_line == "  accepted 1, delivered 0, skipped 0, waiting 1, dead 0, discarded 0"
    assert waits.startswith("  oldest ")
    assert trouble.endswith(" ago: a hook hung")
    assert second == "recorder"
    assert rest[-1] == "  the account does not balance: see pluginhost audit"

    report = as_json("lanes")["lanes"]
    assert [(lane["lane"], lane["state"], lane["balances"]) for lane in report] == [
        ("folder", "paused", True),
        ("recorder", "running", False),
    ]
    assert dt.datetime.fromisoformat(report[0]["paused_at"]).tzinfo
    configure("outbox")
    assert [lane["state"] for lane in as_json("lanes")["lanes"]] == ["paused", "not enabled"]


def test_no_lanes(database, configure):
    configure("outbox")
    assert command("lanes") == "There is no lane: no enabled plugin delivers events.\n"
