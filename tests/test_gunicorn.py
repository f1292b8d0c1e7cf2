"""gunicorn, preloading, under load and told to end: what an answer says was tracked is stored, and once."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pluginhost import host
from pluginhost.workers.worker import drain
from tests.fixtures import DATABASES
from tests.processes import ROOT, environment
from tests.samples import Recorder
from tests.servers import free_port, wait_for_port
from tests.steps import account

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

VISITORS = 4


@contextmanager
def gunicorn(database: str, port: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-W", "ignore", "-m", "gunicorn", "tests.site.wsgi:application"),
            *("--preload", "--workers", "2", "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "20", *options),
        ],
        env=environment(database),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for_port(port, process)
        yield process
    finally:
        process.kill()
        process.wait()


class Visitor(threading.Thread):
    """Asks again and again, until nobody answers any more."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.answers: list[list[str]] = []
        self.failures: list[int] = []

    def run(self) -> None:
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                connection.request("GET", "/tracked/")
                answer = connection.getresponse()
                text = answer.read().decode()
            except (http.client.HTTPException, OSError):
                return  # it has ended
            finally:
                connection.close()
            if answer.status == 200:
                self.answers.append(text.split())
            else:
                self.failures.append(answer.status)


@pytest.mark.parametrize(
    ("database", "options"),
    [
        pytest.param("default", (), id="sqlite-processes"),
        pytest.param("postgres", ("--threads", "2"), id="postgres-threads", marks=DATABASES[1].marks),
    ],
    indirect=["database"],
)
def test_a_server_that_is_told_to_end_under_load_loses_nothing(database, configure, options):
    configure("outbox", recorder={})
    port = free_port()
    with gunicorn(database, port, *options) as server:
        visitors = [Visitor(port) for _ in range(VISITORS)]
        for visitor in visitors:
            visitor.start()
        limit = time.monotonic() + 30
        while len({answer[0] for visitor in visitors for answer in visitor.answers}) < 2:
            assert time.monotonic() < limit, "two processes do not answer"
            time.sleep(0.05)
        server.send_signal(signal.SIGTERM)
        output, _ = server.communicate(timeout=40)
        for visitor in visitors:
            visitor.join(40)
            assert not visitor.is_alive()
    assert server.returncode == 0, output
    assert not any(visitor.failures for visitor in visitors), output
    assert "SIGKILL" not in output

    drain(host.registry.runners, database)
    arrived = Counter(event.message_id for event in Recorder.seen["recorder"])
    told = [id_ for visitor in visitors for answer in visitor.answers for id_ in answer[1:]]
    assert set(told) <= arrived.keys()
    assert set(arrived.values()) == {1}
    assert [event.name for event in Recorder.seen["recorder"]].count("while loading") == 1
    assert account(database, "recorder") == {"accepted": len(arrived), "delivered": len(arrived)}
