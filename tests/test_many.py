"""Many workers and many writers at once: nothing twice, nothing lost, no deadlock; on SQLite no visitor sees a lock."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from django.db import connections, transaction

from pluginhost import host
from pluginhost.builtin.journal.models import Entry
from pluginhost.delivery import accounts
from pluginhost.models import Chunk
from pluginhost.workers.worker import drain
from pluginhost_timeseries.models import EventCount
from tests.processes import ROOT, environment
from tests.steps import seen

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

#: Of all writers together.
EVENTS = int(os.environ.get("PLUGINHOST_TEST_EVENTS", "800"))


def deadlocks(database: str) -> int:
    """How many the server has seen, in its own words."""
    sql = {
        "postgresql": "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
        "mysql": "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'INNODB_DEADLOCKS'",
    }
    with connections[database].cursor() as cursor:
        cursor.execute(sql[connections[database].vendor])
        return int(cursor.fetchone()[0])


def run_many(
    kind: str, environ: dict[str, str], folder: Path, workers: int, writers: int, events: int
) -> tuple[Counter[str], str]:
    """What was tracked, a line an event, and what the processes said."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.many", kind, str(folder), *map(str, [workers, writers, events // writers])],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return Counter(line for path in folder.iterdir() for line in path.read_text().splitlines()), said


def diary(path: Path) -> Counter[str]:
    """What was delivered, likewise."""
    return Counter(line.replace(" ", ",").replace("event,", "event ") for line in path.read_text().splitlines())


@pytest.fixture
def written(tmp_path: Path) -> Path:
    (folder := tmp_path / "written").mkdir()
    return folder


@pytest.mark.timeout(600)
def test_many_workers_and_many_writers(server, configure, tmp_path, written):
    path = tmp_path / "diary"
    configure("outbox", diary={"PLUGIN": "writer", "PATH": str(path), "CONCURRENCY": 2}, journal={}, timeseries={})
    before = deadlocks(server)

    tracked, said = run_many("write", environment(server), written, 8, 8, EVENTS)

    assert said == "", "no process had anything to complain of"
    assert deadlocks(server) == before
    assert len(tracked) == tracked.total() >= EVENTS - 8
    assert diary(path) == tracked
    names, ids = zip(*[line.split(",") for line in tracked], strict=True)
    assert {row.name: row.count for row in EventCount.objects.all()} == Counter(names)
    assert {str(message_id) for message_id in Entry.objects.values_list("message_id", flat=True)} == set(ids)
    for lane, account in accounts.read(server).items():
        assert account == dict.fromkeys(account, 0) | {"accepted": len(tracked), "delivered": len(tracked)}, lane
    assert not Chunk.objects.exists()


def test_an_open_transaction_of_the_site_holds_up_no_worker(server, configure):
    configure("outbox", recorder={})
    tracked, leave = threading.Event(), threading.Event()

    def visit() -> None:
        with transaction.atomic(using=server):
            host.track(None, "undecided")
            tracked.set()
            leave.wait(30)
        connections.close_all()

    host.track(None, "before")
    visitor = threading.Thread(target=visit)
    visitor.start()
    tracked.wait(30)
    host.track(None, "after")
    drain(host.registry.runners, server)
    assert seen("recorder") == ["before", "after"]
    leave.set()
    visitor.join()
    drain(host.registry.runners, server)

    assert seen("recorder") == ["before", "after", "undecided"]


@pytest.fixture
def sqlite_site(tmp_path, configure):
    """A site with a database file of its own, and these options: what its processes need to know."""

    def site(**options):
        configure("outbox", diary={"PLUGIN": "writer", "PATH": str(tmp_path / "diary")}, journal={}, timeseries={})
        connections["default"].ensure_connection()
        with closing(sqlite3.connect(tmp_path / "site.sqlite3")) as copy:
            connections["default"].connection.backup(copy)
        given = environment("default")
        chosen = json.loads(given["PLUGINHOST_TEST_DATABASE"])
        chosen |= {"NAME": str(tmp_path / "site.sqlite3"), "OPTIONS": options}
        return {**given, "PLUGINHOST_TEST_DATABASE": json.dumps(chosen)}

    return site


@pytest.mark.timeout(600)
def test_on_sqlite_no_visitor_sees_a_lock_if_the_site_passes_the_checks(sqlite_site, tmp_path, written):
    site = sqlite_site(transaction_mode="IMMEDIATE", init_command="PRAGMA journal_mode=WAL;")

    tracked, said = run_many("visit", site, written, 1, 3, EVENTS // 5)

    assert "refused" not in tracked
    assert said == ""
    assert diary(tmp_path / "diary") == tracked


@pytest.mark.timeout(600)
def test_on_sqlite_no_work_is_lost_if_the_site_fails_the_checks(sqlite_site, tmp_path, written):
    """The site's own transactions may fail there, and the log says when ours had to wait. What is accepted arrives."""
    tracked, said = run_many("visit", sqlite_site(), written, 1, 3, EVENTS // 5)

    tracked.pop("refused", 0)
    assert "lost" not in tracked
    assert "the outbox lost" not in said
    assert diary(tmp_path / "diary") == tracked
