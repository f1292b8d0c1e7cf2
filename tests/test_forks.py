"""Processes that fork, end or are told to end: what was accepted is sent once, and nothing hangs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from django.db import connections

from pluginhost import counts, host, registry
from pluginhost.workers.worker import drain
from tests.fixtures import on_postgres, on_sqlite
from tests.processes import ROOT, environment
from tests.steps import account, seen, stored

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

#: Seconds after which a child is taken to hang.
HANGS = 30


def in_child(act: Callable[[], object]) -> int:
    """Fork, and let the child do this and nothing else. Returns its status: 0, unless it raised or hung."""
    connections.close_all()  # a site's servers have none open when they fork
    pid = os.fork()
    if pid == 0:
        status = 1
        with suppress(BaseException):
            act()
            connections.close_all()
            status = 0
        os._exit(status)
    return status_of(pid)


def status_of(pid: int) -> int:
    limit = time.monotonic() + HANGS
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > limit:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(ended[1])


def delivered(database: str) -> list[str]:
    drain(host.registry.runners, database)
    assert account(database, "recorder") == {"accepted": len(seen("recorder")), "delivered": len(seen("recorder"))}
    return seen("recorder")


# --- a fork in the middle of a batch ---


def test_what_waits_at_a_fork_is_sent_by_the_parent_alone(database, configure):
    configure("outbox", recorder={})
    block = host.batch()
    with block:
        host.track(None, "before")

        def leave() -> None:
            host.track(None, "in the child")
            block.__exit__(None, None, None)
            host.track(None, "in the child, later")

        assert in_child(leave) == 0
        host.track(None, "after")

    assert delivered(database) == ["in the child", "in the child, later", "before", "after"]


def test_what_a_child_tracks_is_stored_even_if_it_never_leaves_the_block(database, configure):
    configure("outbox", recorder={})
    with host.batch():
        host.track(None, "before")
        assert in_child(lambda: host.track(None, "in the child")) == 0
        assert stored() == 1

    assert delivered(database) == ["in the child", "before"]


def test_a_child_has_batches_of_its_own(database, configure):
    configure("outbox", recorder={})

    def track() -> None:
        with host.batch():
            host.track(None, "one")
            host.track(None, "two")
            assert stored() == 0

    with host.batch():
        assert in_child(track) == 0
    assert delivered(database) == ["one", "two"]


def test_a_child_of_a_view_has_the_request_s_events_not_sent_twice(database, configure, client, monkeypatch):
    """A view that forks, as an old library for PDFs might."""
    from django.http import HttpResponse

    configure("outbox", recorder={})

    def view(request):
        host.track(request, "in the view")
        assert in_child(lambda: host.track(None, "in the child")) == 0
        return HttpResponse("made")

    from django.test import RequestFactory

    from pluginhost.middleware import TrackerMiddleware

    assert TrackerMiddleware(view)(RequestFactory().get("/")).content == b"made"
    assert delivered(database) == ["in the child", "in the view"]


# --- locks that another thread holds at the fork ---


@pytest.mark.parametrize("lock", ["the batch's", "the registry's", "the counters'"])
def test_a_lock_that_a_thread_holds_at_a_fork_stops_no_child(database, configure, lock):
    configure("outbox", recorder={})
    block = host.batch()
    with block:
        host.track(None, "before")
        waiting = block._entered[-1]
        held = {"the batch's": waiting._lock, "the registry's": registry._lock, "the counters'": counts._lock}[lock]
        holds, over = threading.Event(), threading.Event()

        def hold() -> None:
            with held:
                holds.set()
                over.wait(HANGS * 2)

        thread = threading.Thread(target=hold)
        thread.start()
        holds.wait()

        def leave() -> None:
            registry._let_go()  # as after a change of the settings: it loads the plugins
            host.track(None, "in the child")
            block.__exit__(None, None, None)

        try:
            assert in_child(leave) == 0
        finally:
            over.set()
            thread.join()

    assert delivered(database) == ["in the child", "before"]


# --- multiprocessing ---


def track_as(name: str) -> None:
    """What a child of ``multiprocessing`` does. It ends with ``os._exit``."""
    host.track(None, name)


def test_children_of_multiprocessing_that_are_forked(database, configure):
    configure("outbox", recorder={})
    context = multiprocessing.get_context("fork")
    with host.batch():
        host.track(None, "before")
        connections.close_all()
        children = [context.Process(target=track_as, args=(f"child {number}",)) for number in range(3)]
        for child in children:
            child.start()
        for child in children:
            child.join(HANGS)
            assert child.exitcode == 0

    assert sorted(delivered(database)) == ["before", "child 0", "child 1", "child 2"]


SPAWNING = """
import multiprocessing, os, sys
import django
django.setup()
from pluginhost import host
from tests import forking

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with host.batch():
        host.track(None, "before")
        with context.Pool(2, initializer=forking.begin) as pool:
            ids = pool.map(forking.track, range(6))
        host.track(None, "after")
    assert all(ids), ids
    print("done")
"""


@on_postgres
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_children_of_multiprocessing_that_are_begun_anew(database, configure, tmp_path, method):
    configure("outbox", recorder={})
    script = tmp_path / "spawning.py"
    script.write_text(SPAWNING)

    assert run(database, str(script), method) == "done\n"

    assert sorted(delivered(database)) == ["after", "before", *(f"child {number}" for number in range(6))]


def run(database: str, *arguments: str) -> str:
    """Run Python with these arguments, as a process of the site; what it prints. It has to end well, and in time."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment(database),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- the end of a process ---

ENDING = """
import atexit, sys
import django
django.setup()
from pluginhost import host
atexit.register(lambda: host.track(None, "at exit"))
host.track(None, "at once")
with host.batch():
    host.track(None, "in a batch")
    sys.exit()
"""


@on_sqlite
def test_a_process_that_ends_within_a_batch_loses_nothing(database, configure):
    configure("outbox", recorder={})

    run(database, "-c", ENDING)

    assert delivered(database) == ["at once", "in a batch", "at exit"]


# --- the worker of development, a thread of the web process ---

THREAD = """
import os, sys, threading, time
import django
django.setup()
from django.conf import settings
from django.db import connections
from pathlib import Path
from pluginhost import host
from pluginhost.workers import worker
path = Path(settings.PLUGINHOST["PLUGINS"]["writer"]["PATH"])

def wait_for(name):
    limit = time.monotonic() + 30
    while not (path.exists() and f"{name} " in path.read_text()):
        assert time.monotonic() < limit, name
        time.sleep(0.02)

host.track(None, "before")
wait_for("before")
connections.close_all()
if sys.argv[1] == "locked":  # another thread is just about to look whether there is a thread
    threading.Thread(target=worker._threads_lock.acquire).start()
    time.sleep(0.1)
pid = os.fork()
if pid == 0:
    host.track(None, "child")
    wait_for("child")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
if sys.argv[1] == "free":
    host.track(None, "parent")
    wait_for("parent")
print("done", flush=True)
os._exit(0)
"""


@on_postgres
@pytest.mark.parametrize("lock", ["free", "locked"])
def test_after_a_fork_the_child_has_a_worker_thread_of_its_own(database, configure, tmp_path, lock):
    """Not with SQLite: its own locks, held by another thread at a fork, stay shut in the child."""
    configure("outbox", writer={"PATH": str(tmp_path / "written"), "TIMEOUT": 2}, WORKER="thread")

    assert run(database, "-c", THREAD, lock) == "done\n"

    names = [line.split()[0] for line in (tmp_path / "written").read_text().splitlines()]
    assert names == ["before", "child", "parent"][: 3 if lock == "free" else 2]
