"""Many workers and many writers at once: nothing twice, nothing lost, no deadlock; on SQLite no visitor sees a lock."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from django.db import connections

from pluginhost.builtin.journal.models import Entry
from pluginhost.delivery import accounts
from pluginhost.models import Chunk
from pluginhost_timeseries.models import EventCount
from tests.processes import ROOT, environment

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

#: Of all writers together.
EVENTS = int(os.environ.get("PLUGINHOST_TEST_EVENTS", "1500"))
WORKERS = WRITERS = 8


def deadlocks(database: str) -> int:
    """How many the server has seen, in its own words."""
    sql = {
        "postgresql": "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
        "mysql": "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'INNODB_DEADLOCKS'",
    }
    with connections[database].cursor() as cursor:
        cursor.execute(sql[connections[database].vendor])
        return int(cursor.fetchone()[0])


def run_many(database: str, folder, workers: int, writers: int) -> list[tuple[str, str]]:
    """Names and message ids of what was tracked; nothing went wrong in any process, or was even said to."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.many", str(folder), str(workers), str(writers), str(EVENTS // writers)],
        env=environment(database),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return [tuple(line.split(",")) for path in folder.iterdir() for line in path.read_text().splitlines()]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [WORKERS])
def test_many_workers_and_many_writers(any_database, configure, tmp_path, workers):
    if any_database == "default":
        pytest.skip("SQLite has a test of its own")
    (written := tmp_path / "written").mkdir()
    configure(
        "outbox", diary={"PLUGIN": "writer", "PATH": str(tmp_path / "diary"), "CONCURRENCY": 2}, journal={}, timeseries={}
    )
    before = deadlocks(any_database)

    tracked = run_many(any_database, written, workers, WRITERS)

    assert len(tracked) >= EVENTS - WRITERS
    assert deadlocks(any_database) == before
    delivered = [line.rsplit(" ", 1) for line in (tmp_path / "diary").read_text().splitlines()]
    assert Counter((name, message_id) for name, message_id in delivered) == Counter(tracked)
    names = Counter(name for name, _ in tracked)
    assert {row.name: row.count for row in EventCount.objects.all()} == names
    assert {str(each) for each in Entry.objects.values_list("message_id", flat=True)} == {each for _, each in tracked}
    for lane, account in accounts.read(any_database).items():
        assert account == dict.fromkeys(account, 0) | {"accepted": len(tracked), "delivered": len(tracked)}, lane
    assert not Chunk.objects.exists()
