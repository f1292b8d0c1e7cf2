"""What a worker shows its supervisor, and what it does once an hour."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from pluginhost import healthcheck, host
from pluginhost.models import Chunk
from pluginhost.workers import health
from pluginhost.workers import worker as module
from pluginhost.workers.health import Heartbeat, Housekeeper
from pluginhost.workers.worker import Worker
from tests.processes import ROOT, wait_until, worker

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)
#: Seconds that everything here may take.
SOON = 15


@pytest.fixture
def file(tmp_path):
    return tmp_path / "healthy.json"


@contextmanager
def working(file):
    """A worker in a thread of this process."""
    heartbeat = Heartbeat(file, ["folder"])
    heartbeat.begin()
    made = Worker(host.registry.runners, "default", heartbeat=heartbeat)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        made.end()
        thread.join(SOON)
        assert not thread.is_alive()


def touched(file) -> int:
    return file.stat().st_mtime_ns


# --- the file ---


def test_the_file_says_who_is_well(file):
    Heartbeat(file, ["b", "a"]).begin()
    said = json.loads(file.read_text())
    assert (said["pid"], said["lanes"]) == (os.getpid(), ["a", "b"])
    assert list(said) == ["time", "pid", "lanes"]
    assert [path.name for path in file.parent.iterdir()] == [file.name], "nothing is left beside it"


def test_it_is_not_written_at_each_turn(file, monkeypatch):
    heartbeat = Heartbeat(file, [])
    heartbeat.begin()
    first = touched(file)
    heartbeat.beat()
    assert touched(file) == first

    monkeypatch.setattr(health, "BEAT_EVERY", 0)
    heartbeat.beat()
    assert touched(file) > first


def test_a_disk_that_is_full_is_said_once_and_survived(file, monkeypatch, caplog):
    monkeypatch.setattr(health, "BEAT_EVERY", 0)
    heartbeat = Heartbeat(file.parent / "later" / "file", [])
    for _ in range(3):
        heartbeat.beat()
    (file.parent / "later").mkdir()
    heartbeat.beat()
    assert (file.parent / "later" / "file").exists()
    [record] = caplog.records
    assert "can't be written" in record.getMessage()


def test_only_its_own_file_is_removed(file):
    heartbeat = Heartbeat(file, [])
    heartbeat.begin()
    of_another = file.read_text().replace(str(os.getpid()), "1")
    file.write_text(of_another)
    heartbeat.end()
    assert file.read_text() == of_another

    heartbeat.begin()
    heartbeat.end()
    assert not file.exists()
    heartbeat.end()


# --- the worker ---


def test_a_worker_process_keeps_the_file_fresh_and_removes_it(configure, tmp_path, file):
    configure("outbox", writer={"PATH": str(tmp_path / "written")})
    with worker("default", "--healthcheck", str(file)) as process:
        assert json.loads(file.read_text())["pid"] == process.pid
        assert json.loads(file.read_text())["lanes"] == ["writer"]
        first = touched(file)
        wait_until(lambda: touched(file) > first, SOON)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    assert not file.exists()


def test_a_worker_that_was_killed_leaves_the_file(configure, tmp_path, file):
    configure("outbox", writer={"PATH": str(tmp_path / "written")})
    with worker("default", "--healthcheck", str(file)) as process:
        process.kill()
        process.wait()
    assert file.exists()


def test_a_path_that_can_t_be_written_is_an_error_at_the_start(configure, tmp_path):
    configure("outbox", folder={})
    with pytest.raises(CommandError, match=r"--healthcheck: .*absent/file can't be written: No such file or directory"):
        call_command("pluginhost", "worker", "--healthcheck", str(tmp_path / "absent" / "file"))


def test_a_drain_has_no_health_check(configure, file):
    configure("outbox", folder={})
    with pytest.raises(CommandError, match="--drain ends by itself"):
        call_command("pluginhost", "worker", "--drain", "--healthcheck", str(file))


def test_a_database_that_is_away_stops_no_beat(configure, file, monkeypatch):
    configure("outbox", folder={})
    refused = []

    def refuse(using):
        refused.append(using)
        raise OperationalError("away")

    monkeypatch.setattr(health, "BEAT_EVERY", 0)
    monkeypatch.setattr(module, "take", refuse)
    with working(file):
        wait_until(lambda: refused, SOON)
        first = touched(file)
        wait_until(lambda: touched(file) > first, SOON)


def test_an_intake_that_is_stuck_shows(configure, file, monkeypatch):
    configure("outbox", folder={})
    stuck, released = threading.Event(), threading.Event()

    def wait(using) -> int:
        stuck.set()
        released.wait(SOON)
        return 0

    monkeypatch.setattr(health, "BEAT_EVERY", 0)
    with working(file):
        wait_until(lambda: touched(file), SOON)
        monkeypatch.setattr(module, "take", wait)
        try:
            assert stuck.wait(SOON)
            first = touched(file)
            assert not released.wait(0.5)
            assert touched(file) == first
        finally:
            released.set()
        wait_until(lambda: touched(file) > first, SOON)


# --- the check ---


def test_the_check_looks_at_the_age(file, capsys):
    assert healthcheck.main([str(file)]) == 1
    assert "no worker" in capsys.readouterr().out
    file.touch()
    assert healthcheck.main([str(file)]) == 0
    long_ago = time.time() - 61
    os.utime(file, (long_ago, long_ago))
    assert healthcheck.main([str(file)]) == 1
    assert re.fullmatch(r"not well: touched 6\d s ago", capsys.readouterr().out.splitlines()[-1])
    assert healthcheck.main([str(file), "--max-age", "3600"]) == 0


def test_the_check_boots_no_django(file):
    file.touch()
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['healthcheck', {str(file)!r}]\n"
        "try:\n    runpy.run_module('pluginhost.healthcheck', run_name='__main__')\n"
        "except SystemExit as end:\n    status = end.code\n"
        "assert 'django' not in sys.modules and 'msgspec' not in sys.modules, sorted(sys.modules)\n"
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("well: touched ")


# --- housekeeping ---


class Waits:
    """Stands for the event that ends a worker: notes how long it is waited for, and is set after some waits."""

    def __init__(self, number: int) -> None:
        self.waited: list[float] = []
        self._number = number

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        return len(self.waited) > self._number


def test_housekeeping_is_done_once_an_hour_and_not_by_all_at_once(monkeypatch):
    cleaned = []
    monkeypatch.setattr(health, "clean", lambda using: cleaned.append(using) or {})
    firsts = set()
    for _ in range(10):
        stop = Waits(3)
        Housekeeper("default", stop).run()
        first, *others = stop.waited
        assert 0 < first <= 3600
        assert all(3000 < wait < 4200 for wait in others)
        firsts.add(first)

    assert len(firsts) == 10
    assert max(firsts) - min(firsts) > 60
    assert cleaned == ["default"] * 30


@pytest.mark.parametrize("error", [OperationalError("away"), ValueError("a fault")], ids=["database", "fault"])
def test_housekeeping_that_fails_is_logged_and_done_again(monkeypatch, caplog, error):
    calls = []

    def clean(using):
        calls.append(using)
        raise error

    monkeypatch.setattr(health, "clean", clean)
    Housekeeper("default", Waits(2)).run()
    assert len(calls) == 2
    assert str(error) in caplog.text


def test_a_worker_removes_what_is_left_behind(configure, monkeypatch, file):
    configure("outbox", folder={})
    Chunk.objects.create(n=1, payload=b"[]")
    monkeypatch.setattr(health, "CLEAN_EVERY", 0.05)
    with working(file):
        wait_until(lambda: not Chunk.objects.exists(), SOON)
