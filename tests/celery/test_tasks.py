"""What the tasks do and send, without a worker: the broker is the memory of the test's process."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from celery.exceptions import Reject
from celery.signals import worker_process_shutdown, worker_shutdown
from django.db import OperationalError

from pluginhost import PermanentError, RetryableError, host, tasks
from pluginhost.delivery import ingest as storing
from pluginhost.delivery.lanes import claim
from pluginhost.models import Delivery, Envelope, Lane
from pluginhost.workers import nudging
from tests.celery.workers import Site, in_force
from tests.processes import ROOT, environment
from tests.samples import Recorder
from tests.steps import account, raising, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


@pytest.fixture
def site(database):
    nudging.reset()
    with Site(database, "memory://") as site, in_force(site):
        site.app.finalize()
        yield site
    nudging.reset()


def sent(site, queue=None):
    """The messages that a queue has, as (task, arguments)."""
    return [(message.headers["task"], message.payload[0]) for message in messages(site, queue)]


def messages(site, queue=None):
    with site.app.connection_for_read() as connection:
        waiting = connection.default_channel.queues.get(queue or site.queue)
        found = []
        if waiting is not None:
            while message := connection.default_channel.basic_get(queue or site.queue, no_ack=True):
                found.append(message)
    return found


def test_a_look_takes_envelopes_and_sends_a_task_for_each_lane_that_has_something_due(configure, database, site):
    configure("outbox", recorder={}, folder={})
    track("one", "two")
    tasks.tick(database)
    assert Envelope.objects.count() == 0
    assert sent(site) == [("pluginhost.deliver", ["recorder", database]), ("pluginhost.deliver", ["folder", database])]
    Delivery.objects.all().delete()
    tasks.tick(database)
    assert sent(site) == []


def test_lanes_that_are_paused_removed_or_at_work_get_none(configure, database, site):
    configure("outbox", recorder={}, folder={}, other={"PLUGIN": "recorder"}, busy={"PLUGIN": "recorder"})
    track("one")
    configure("outbox", recorder={}, folder={}, busy={"PLUGIN": "recorder"})
    Lane.objects.create(name="folder", paused_at="2026-01-01T00:00Z")
    assert nudging.look(database)
    track("two")
    assert claim(host.registry.runners["busy"], database)
    tasks.tick(database)
    assert sent(site) == [("pluginhost.deliver", ["recorder", database])]


def test_a_lane_with_a_concurrency_gets_more(configure, database, site):
    configure("outbox", recorder={"CONCURRENCY": 2, "BATCH_SIZE": 1})
    for name in ("one", "two", "three"):
        track(name)
        nudging.look(database)
    runner = host.registry.runners["recorder"]
    assert claim(runner, database)
    tasks.tick(database)
    assert sent(site) == [("pluginhost.deliver", ["recorder", database])]
    assert claim(runner, database)
    tasks.tick(database)
    assert sent(site) == []


def test_the_option_queue_and_the_site_s_routes_say_where_a_lane_s_tasks_go(configure, database, site):
    site.app.conf.task_routes = [
        lambda name, args, kwargs, options, **_: {"queue": "routed"} if args and args[0] == "folder" else None
    ]
    configure("outbox", recorder={"CELERY_QUEUE": "slow"}, folder={}, usual={"PLUGIN": "recorder"})
    track("one")
    tasks.tick(database)
    assert sent(site, "slow") == [("pluginhost.deliver", ["recorder", database])]
    assert sent(site, "routed") == [("pluginhost.deliver", ["folder", database])]
    assert sent(site) == [("pluginhost.deliver", ["usual", database])]


def test_what_only_says_look_expires_and_a_lane_s_task_may_take_what_its_hook_may(configure, database, site):
    site.app.conf.update(task_time_limit=1, task_soft_time_limit=1)
    configure("outbox", recorder={"TIMEOUT": 100})
    track("one")
    tasks.tick(database)
    tasks.tick.delay(database)
    deliver, tick = messages(site)
    assert all(message.headers["expires"] for message in (deliver, tick))
    assert deliver.properties["delivery_mode"] == 1
    assert min(deliver.headers["timelimit"]) > 100


def test_a_lane_is_worked_off_until_nothing_is_due(configure, database, site):
    configure("outbox", recorder={"BATCH_SIZE": 2})
    track("one", "two", "three")
    track("four")
    nudging.look(database)
    tasks.deliver("recorder", database)
    assert seen("recorder") == ["one", "two", "three", "four"]
    assert sent(site) == []


def test_after_a_while_others_get_the_process(configure, database, site, monkeypatch):
    monkeypatch.setattr(nudging, "SECONDS_TO_WORK", 0.05)
    configure("outbox", recorder={"BATCH_SIZE": 1})
    Recorder.act["recorder"] = lambda event: time.sleep(0.1)
    track("one", "two", "three")
    nudging.look(database)
    tasks.deliver("recorder", database)
    assert seen("recorder") == ["one"]
    assert sent(site) == [("pluginhost.deliver", ["recorder", database])]
    tasks.deliver("recorder", database)
    assert seen("recorder") == ["one", "two"]
    assert account(database, "recorder") == {"accepted": 3, "delivered": 2, "waiting": 1}


def test_a_lane_of_another_version_of_the_site_is_left_alone(configure, database, site):
    configure("outbox", recorder={}, other={"PLUGIN": "recorder"})
    track("one")
    nudging.look(database)
    configure("outbox", recorder={})
    tasks.deliver("other", database)
    assert sent(site) == []
    assert account(database, "other") == {"accepted": 1, "waiting": 1}


def test_a_lane_at_work_is_left_alone_unless_its_worker_has_died(configure, database, site):
    configure("outbox", recorder={})
    track("held")
    nudging.look(database)
    assert claim(host.registry.runners["recorder"], database)
    track("next")
    nudging.look(database)
    tasks.deliver("recorder", database)
    assert seen("recorder") == []
    tasks.deliver.push_request(delivery_info={"redelivered": True})
    try:
        tasks.deliver.run("recorder", database)
    finally:
        tasks.deliver.pop_request()
    assert seen("recorder") == ["next"]


def test_of_two_tasks_that_began_at_once_for_a_lane_one_leaves(configure, database, site):
    configure("outbox", recorder={"BATCH_SIZE": 1})
    for name in ("mine", "another's", "next"):
        track(name)
        nudging.look(database)
    runner = host.registry.runners["recorder"]
    Recorder.act["recorder"] = lambda event: claim(runner, database)
    tasks.deliver("recorder", database)
    assert seen("recorder") == ["mine"]
    assert sent(site) == []


@pytest.mark.parametrize(
    "error", [RetryableError("away"), RetryableError("busy", retry_after=60)], ids=["away", "busy"]
)
def test_a_receiver_that_is_away_is_not_asked_again_at_once(configure, database, site, monkeypatch, error):
    configure("outbox", recorder={"BATCH_SIZE": 1})
    asked = []

    def refuse(event):
        asked.append(event.name)
        raise error

    Recorder.act["recorder"] = refuse
    for name in ("one", "two"):
        track(name)
        nudging.look(database)
    for _ in range(3):
        tasks.deliver("recorder", database)
    assert asked == ["one"]
    Recorder.act.clear()
    later = time.monotonic() + 61
    monkeypatch.setattr(nudging.time, "monotonic", lambda: later)
    tasks.deliver("recorder", database)
    assert seen("recorder") == ["two"]


def test_a_dead_letter_is_no_rest_for_the_lane(configure, database, site):
    configure("outbox", recorder={})
    Recorder.act["recorder"] = raising(lambda: PermanentError("no"), "bad")
    track("bad", "good")
    nudging.look(database)
    tasks.deliver("recorder", database)
    assert seen("recorder") == ["good"]
    assert account(database, "recorder") == {"accepted": 2, "delivered": 1, "dead": 1}


def test_a_database_that_refuses_is_told_once_and_raises_nothing(configure, database, site, monkeypatch, caplog):
    configure("outbox", recorder={})
    track("one")
    with monkeypatch.context() as patch:

        def refuse(using):
            raise OperationalError("away")

        patch.setattr(nudging, "take", refuse)
        tasks.tick(database)
        tasks.tick(database)
    tasks.tick(database)
    told = [record.getMessage() for record in caplog.records if record.name == "pluginhost.worker"]
    assert told == [
        "intake: the database refuses; tried again until it does not: away",
        "intake: the database works again",
    ]
    assert sent(site) == [("pluginhost.deliver", ["recorder", database])]


ENVELOPE = {"version": 1, "envelope_id": "1f0d3d6c-5c8c-4b6e-9a53-5f1a6a2a9c11", "lanes": "recorder", "n": 1}


def test_what_the_broker_carried_is_stored_once(configure, database, site):
    configure("outbox", recorder={})
    for _ in range(2):
        tasks.ingest(**ENVELOPE, payload="[1]", using=database)
    assert Envelope.objects.get().lanes == "recorder"


def test_what_cannot_be_stored_at_first_is_tried_again(configure, database, site, monkeypatch):
    configure("outbox", recorder={})
    monkeypatch.setattr(tasks, "PAUSES", (0.01, 0.01))
    store, tries = storing.ingest, []

    def refuse_twice(**message):
        tries.append(1)
        if len(tries) < 3:
            raise OperationalError("away")
        store(**message)

    monkeypatch.setattr(storing, "ingest", refuse_twice)
    tasks.ingest(**ENVELOPE, payload="[1]", using=database)
    assert Envelope.objects.count() == 1


@pytest.mark.parametrize("more", [{}, {"of_a_later_version": 1}], ids=["away", "newer"])
def test_what_cannot_be_stored_goes_back_to_the_broker(configure, database, site, monkeypatch, more):
    configure("outbox", recorder={})
    monkeypatch.setattr(tasks, "PAUSES", (0.01,))

    def refuse(**message):
        raise OperationalError("away")

    if not more:
        monkeypatch.setattr(storing, "ingest", refuse)
    with pytest.raises(Reject) as rejected:
        tasks.ingest(**ENVELOPE, payload="[1]", using=database, **more)
    assert rejected.value.requeue is True


def test_beat_has_two_entries_a_database():
    entries = tasks.beat_schedule(period=2, databases=("default", "events"))
    assert {(entry["task"], entry["schedule"], entry["kwargs"]["using"]) for entry in entries.values()} == {
        ("pluginhost.tick", 2, "default"),
        ("pluginhost.clean", 3600.0, "default"),
        ("pluginhost.tick", 2, "events"),
        ("pluginhost.clean", 3600.0, "events"),
    }


def test_cleaning_is_a_task(configure, database, site):
    configure("outbox", recorder={}, DEAD_LETTER_DAYS=30)
    Recorder.act["recorder"] = raising(lambda: PermanentError("no"))
    track("bad")
    nudging.look(database)
    tasks.deliver("recorder", database)
    Delivery.objects.update(created="2020-01-01T00:00Z", due_at="2020-01-01T00:00Z")
    tasks.clean(database)
    assert account(database, "recorder") == {"accepted": 1, "discarded": 1}


@pytest.mark.parametrize("signal", [worker_process_shutdown, worker_shutdown], ids=["child", "worker"])
def test_a_process_that_ends_closes_the_plugins_that_it_has_used(signal, configure, database, site, monkeypatch):
    configure("outbox", recorder={}, unused={"PLUGIN": "recorder"})
    closed = []
    for alias, runner in host.registry.runners.items():
        monkeypatch.setattr(runner.plugin, "close", lambda alias=alias: closed.append(alias))
    host.track(None, "one", plugins={"unused": False})
    nudging.look(database)
    tasks.deliver("recorder", database)
    signal.send(None)
    assert closed == ["recorder"]


def test_a_site_without_celery_never_imports_it(configure):
    configure("outbox", recorder={})
    script = (
        "import sys; sys.modules['celery'] = sys.modules['kombu'] = None\n"
        "import django; django.setup()\n"
        "from django.core.management import call_command\n"
        "from pluginhost import host\n"
        "call_command('check'); host.track(None, 'one'); call_command('pluginhost', 'worker', '--drain')\n"
    )
    environ = environment("default")
    subprocess.run([sys.executable, "-c", script], env=environ, cwd=ROOT, check=True, capture_output=True, text=True)
    assert account("default", "recorder") == {"accepted": 1, "delivered": 1}
