"""The worker as a process of its own: what a user starts, stops and kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from django.core.management import CommandError, call_command

from pluginhost import host
from pluginhost.delivery import accounts
from pluginhost.models import Delivery, Lane
from pluginhost.workers.worker import drain
from tests.commands import command
from tests.processes import ROOT, end, environment, nothing_waits, start, wait_until, worker
from tests.samples import Recorder
from tests.steps import account, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


@pytest.fixture
def written(tmp_path):
    """A file that lanes write to, and what is in it."""

    def lines(name: str = "written") -> list[str]:
        path = tmp_path / name
        return path.read_text().splitlines() if path.exists() else []

    lines.path = lambda name="written": str(tmp_path / name)
    return lines


def names(lines: list[str]) -> list[str]:
    return [line.rpartition(" ")[0] for line in lines]


def test_a_worker_process_delivers_and_ends_when_told(database, configure, written):
    configure("outbox", writer={"PATH": written.path()})
    host.track(None, "before it starts")

    with worker(database) as process:
        wait_until(lambda: len(written()) == 1)
        host.track(None, "while it runs")
        wait_until(lambda: len(written()) == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0

    assert names(written()) == ["before it starts", "while it runs"]
    assert accounts.read(database)["writer"]["delivered"] == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_drain_that_is_told_to_end_finishes_what_is_in_hand(database, configure, number):
    configure("outbox", recorder={"BATCH_SIZE": 1})
    track("a", "b", "c")
    Recorder.act["recorder"] = lambda event: event.name == "b" and os.kill(os.getpid(), number)
    before = signal.getsignal(number)

    assert command("worker", "--drain") == "told to end; 1 batch was run\n"

    assert seen("recorder") == ["a", "b"]
    assert account(database, "recorder") == {"accepted": 3, "delivered": 2, "waiting": 1}
    left = Delivery.objects.get()
    assert (left.token, left.attempts, left.kills) == (None, 0, 0)
    assert signal.getsignal(number) is before
    Recorder.act.clear()
    assert command("worker", "--drain") == "nothing is due any more; 1 batch was run\n"
    assert seen("recorder") == ["a", "b", "c"]


def test_lanes_do_not_wait_for_one_another(database, configure, written):
    configure(
        "outbox",
        writer={"PATH": written.path("slow")},
        quick={"PLUGIN": "writer", "PATH": written.path("quick")},
    )

    with worker(database):
        begun = time.monotonic()
        host.track(None, "slow", plugins={"quick": False})
        host.track(None, "quick", plugins={"writer": False})
        wait_until(lambda: written("quick"))
        assert time.monotonic() - begun < 2.5
        assert not written("slow")
        wait_until(lambda: written("slow"))


def test_two_workers_deliver_each_event_once(database, configure, written):
    configure("outbox", writer={"PATH": written.path(), "BATCH_SIZE": 7})

    with worker(database), worker(database):
        for number in range(300):
            host.track(None, f"event {number}")
        wait_until(lambda: nothing_waits(database))

    assert len(written()) == 300
    assert len(set(written())) == 300


def test_a_killed_worker_s_events_are_delivered_by_the_next(database, configure, written):
    configure("outbox", writer={"PATH": written.path(), "TIMEOUT": 1})
    host.track(None, "slow")

    with worker(database) as process:
        wait_until(lambda: Delivery.objects.exclude(token=None).exists())
        process.kill()
        process.wait()
    assert written() == []
    with worker(database):
        wait_until(lambda: written())

    assert names(written()) == ["slow"]
    assert accounts.balances(accounts.read(database)["writer"])


def test_a_hook_that_hangs_ends_the_worker_but_not_the_other_lanes(configure, written):
    configure(
        "outbox",
        writer={"PATH": written.path("hung"), "TIMEOUT": 0.1},
        quick={"PLUGIN": "writer", "PATH": written.path("quick")},
    )
    hanging = host.track(None, "hang", plugins={"quick": False})
    host.track(None, "quick", plugins={"writer": False})

    with worker("default") as process:
        wait_until(lambda: written("quick"))
        assert process.wait(timeout=20) == 70
        printed = process.stdout.read()
    assert "the hook of writer hangs" in printed
    assert f"in hand: {hanging}" in printed
    assert f"in hand: {hanging}" in Lane.objects.get(name="writer").trouble


def test_a_hook_that_hangs_ends_a_drain_too(configure, written):
    """As cron runs it: the next run goes on with the other lanes."""
    configure("outbox", writer={"PATH": written.path(), "TIMEOUT": 0.1})
    hanging = host.track(None, "hang")
    process = start("default", "worker", "--drain")
    try:
        assert process.wait(timeout=30) == 70
    finally:
        assert "the hook of writer hangs" in end(process)
    assert f"in hand: {hanging}" in Lane.objects.get(name="writer").trouble


def test_only_the_lanes_that_were_named(database, configure, written):
    configure(
        "outbox",
        writer={"PATH": written.path("one")},
        other={"PLUGIN": "writer", "PATH": written.path("other")},
    )
    host.track(None, "both")

    call_command("pluginhost", "worker", "--drain", "--lane", "other", "--database", database)

    assert names(written("other")) == ["both"]
    assert written("one") == []
    assert accounts.read(database)["writer"]["waiting"] == 1


def test_a_lane_that_does_not_exist_is_refused_with_the_right_one(configure):
    configure("outbox", recorder={})

    with pytest.raises(CommandError, match="there is no lane 'recoder'. Did you mean 'recorder'?"):
        call_command("pluginhost", "worker", "--drain", "--lane", "recoder")


def test_a_worker_without_lanes_says_so(configure):
    configure("outbox", filter={})

    with pytest.raises(CommandError, match="no enabled plugin delivers events"):
        call_command("pluginhost", "worker")


def test_drain_delivers_what_is_due_and_ends(database, configure, written):
    configure("outbox", writer={"PATH": written.path()})
    host.track(None, "due")

    process = start(database, "worker", "--drain")
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 0, output
    assert output == "nothing is due any more; 1 batch was run\n"
    assert names(written()) == ["due"]


def test_a_worker_survives_tables_that_come_back(database, configure, written, django_db_blocker):
    from django.db import connections

    configure("outbox", writer={"PATH": written.path()})
    with worker(database) as process:
        with connections[database].cursor() as cursor:
            cursor.execute("ALTER TABLE pluginhost_delivery RENAME TO elsewhere")
        time.sleep(2)
        with connections[database].cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO pluginhost_delivery")
        host.track(None, "after the storm")
        wait_until(lambda: written())
        assert process.poll() is None

    assert names(written()) == ["after the storm"]


DEVELOPMENT = """
import time, django
django.setup()
from pathlib import Path
from django.conf import settings
from pluginhost import host
host.track(None, "from the web process")
path = Path(settings.PLUGINHOST["PLUGINS"]["writer"]["PATH"])
limit = time.monotonic() + 20
while not path.exists() and time.monotonic() < limit:
    time.sleep(0.05)
print(path.read_text().split(" 0")[0])
"""


def test_in_development_a_thread_of_the_web_process_delivers(configure, written):
    configure("outbox", writer={"PATH": written.path()}, WORKER="thread")

    done = subprocess.run(
        [sys.executable, "-c", DEVELOPMENT],
        env=environment("default"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stdout == "from the web process\n", done.stderr


def test_after_a_fork_both_processes_deliver(database, configure):
    """A preloading server loads the plugins before it forks; each process sets them up for itself."""
    configure("outbox", recorder={})
    host.track(None, "before the fork")
    drain(host.registry.runners, database)
    from django.db import connections

    connections.close_all()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            host.track(None, "in the child")
            drain(host.registry.runners, database)
            status = 0 if [event.name for event in Recorder.seen["recorder"]][1:] == ["in the child"] else 2
            connections.close_all()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    host.track(None, "in the parent")
    drain(host.registry.runners, database)

    assert os.waitstatus_to_exitcode(status) == 0
    assert [event.name for event in Recorder.seen["recorder"]] == ["before the fork", "in the parent"]


def test_the_first_ctrl_c_is_enough(configure, written):
    configure("outbox", writer={"PATH": written.path()})
    process = start("default", "worker", start_new_session=True)
    try:
        assert process.stdout.readline().startswith("worker ")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=20) == 0
    finally:
        assert "Traceback" not in end(process)


def test_options_stand_before_and_behind_the_subcommand(database, configure, written, capsys):
    configure("outbox", writer={"PATH": written.path()})
    host.track(None, "one")

    call_command("pluginhost", "--database", database, "worker", "--drain", "--verbosity", "0")
    assert names(written()) == ["one"]
    capsys.readouterr()
    call_command("pluginhost", "--json", "list", "--no-color")
    assert capsys.readouterr().out.startswith("{")
    with pytest.raises(CommandError, match="unrecognized arguments: --json"):
        call_command("pluginhost", "worker", "--json")


@pytest.mark.mongo
def test_a_site_s_order_reaches_both_storages_through_a_worker(database, configure, client, mongodb):
    """The whole way: a transaction, the outbox, a process, MongoDB and the counters; and nothing of a rollback."""
    import pymongo

    from pluginhost_timeseries import EventCount

    configure("outbox", mongo={"URI": mongodb, "DATABASE": "site"}, timeseries={})
    with pymongo.MongoClient(mongodb) as connected:
        connected.drop_database("site")
        with worker(database):
            for end_ in ("commit", "rollback", "savepoint", "manual"):
                assert client.get("/order/", {"end": end_}).status_code == 200
            wait_until(lambda: accounts.read(database).get("mongo", {}).get("delivered") == 1)
            wait_until(lambda: nothing_waits(database))

        [document] = connected["site"]["events"].find()
    assert (document["name"], document["value"]) == ("order paid", 12.5)
    [count] = EventCount.objects.all()
    assert (count.name, count.count, count.total) == ("order paid", 1, 12.5)
    assert {lane: account["accepted"] for lane, account in accounts.read(database).items()} == {
        "mongo": 1,
        "timeseries": 1,
    }
