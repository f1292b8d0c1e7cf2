"""A broker that hangs, stops or is short of memory while requests go on: none fails, none waits, all events arrive."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from django.db import connections
from django.test import Client

from pluginhost import host
from pluginhost.delivery import broker as brokerage
from pluginhost.workers.worker import drain
from tests.brokers import RabbitMQ, Valkey
from tests.celery import carried
from tests.fixtures import DATABASES
from tests.processes import wait_until
from tests.samples import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.brokers import Broker

pytestmark = [pytest.mark.django_db(databases="__all__", transaction=True), pytest.mark.timeout(300)]

SECONDS = float(os.environ.get("PLUGINHOST_TEST_OUTAGE_SECONDS", "1"))
THREADS = 4
BUDGET = 0.25
#: Two cores, and others beside us. Without a budget, a request waits for the whole outage.
SLACK = 1.0

SERVERS = [
    pytest.param(RabbitMQ, id="rabbitmq", marks=pytest.mark.rabbitmq),
    pytest.param(Valkey, id="valkey", marks=pytest.mark.valkey),
]


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker that the tests may stop."""
    if request.param is RabbitMQ and RabbitMQ.program() is None:
        pytest.skip("no RabbitMQ server")
    with request.param() as server:
        yield server


class Visitors:
    """Threads that visit pages one after the other; pages of all kinds: in a transaction and outside of one."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.visits: list[tuple[float, float, int, str]] = []
        """When each began, how long it took, its status, and what it tracked."""
        self._over = threading.Event()
        self._may_go = threading.Event()
        self._may_go.set()
        self._at_rest = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._visit, args=(number,)) for number in range(THREADS)]

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._may_go.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _visit(self, number: int) -> None:
        client = Client(raise_request_exception=False)
        try:
            while not self._over.wait(0.05):
                if not self._may_go.is_set():
                    self._at_rest.release()
                    self._may_go.wait()
                for path, tracked in (("/", "home seen"), ("/order/", "order paid")):
                    begun = time.monotonic()
                    response = client.get(path)
                    self.visits.append((begun, time.monotonic() - begun, response.status_code, tracked))
        finally:
            connections.close_all()

    def rest(self) -> None:
        """Until they go on."""
        self._may_go.clear()
        for _ in self._threads:
            assert self._at_rest.acquire(timeout=30)

    def go_on(self, seconds: float) -> None:
        """Let them visit for so long, and once each at least."""
        self._may_go.set()
        begun, end = len(self.visits), time.monotonic() + seconds
        wait_until(lambda: len(self.visits) >= begun + 4 * THREADS and time.monotonic() > end)


def arrived(app: Any, queue: str, database: str) -> list[str]:
    """All that came of it, by way of the broker or not, as a lane sees it."""
    carried.take_in(app, queue)
    drain(host.registry.runners, database)
    return sorted({event.message_id: event.name for event in Recorder.seen["recorder"]}.values())


@pytest.mark.parametrize("database", [pytest.param(*DATABASES[1].values, marks=DATABASES[1].marks)], indirect=True)
def test_no_request_fails_or_waits_for_a_broker_that_is_away(server, configure, database):
    queue = carried.new_queue()
    configure("celery", recorder={}, INGEST_QUEUE=queue, BROKER_BUDGET=BUDGET)
    spilled = host.counts.get("spilled", 0)
    with carried.celery_app(server.url) as app:
        with Visitors(database) as visitors:
            visitors.go_on(0.2)
            frozen = time.monotonic()
            server.freeze()
            visitors.go_on(SECONDS)
            server.thaw()
            thawed = time.monotonic()
            wait_until(lambda: not brokerage.office().breaker.is_open)
            visitors.go_on(0.2)
            if server.kind == "valkey":  # it forgets what it has
                visitors.rest()
                carried.take_in(app, queue)
            stopped = time.monotonic()
            server.stop()
            visitors.go_on(SECONDS)
            server.start()
            started = time.monotonic()
            wait_until(lambda: not brokerage.office().breaker.is_open)
            visitors.go_on(0.2)

        assert {status for _, _, status, _ in visitors.visits} == {200}
        for outage, end in ((frozen, thawed), (stopped, started)):
            waits = [took for begun, took, _, _ in sorted(visitors.visits) if outage <= begun < end]
            assert max(waits[1:]) < BUDGET + SLACK
            # Those that were under way when it began, and a probe now and then.
            assert sum(took > BUDGET for took in waits) < len(waits) / 2
        assert arrived(app, queue, database) == sorted(name for _, _, _, name in visitors.visits)
        assert host.counts["spilled"] > spilled


def test_a_connection_that_the_broker_has_closed_is_no_outage(server, configure, caplog):
    queue = carried.new_queue()
    configure("celery", recorder={}, INGEST_QUEUE=queue, BROKER_BUDGET=10.0)
    with carried.celery_app(server.url) as app:
        host.track(None, "before")
        carried.take_in(app, queue)
        close_connections(server)
        spilled = host.counts.get("spilled", 0)
        host.track(None, "after")

        assert host.counts.get("spilled", 0) == spilled
        assert carried.in_queue(app, queue) == 1
    assert "the broker" not in caplog.text


@pytest.mark.parametrize("server", SERVERS[:1], indirect=True)
def test_a_broker_short_of_memory_keeps_nobody_waiting(configure, server, caplog):
    queue = carried.new_queue()
    configure("celery", recorder={}, INGEST_QUEUE=queue, BROKER_BUDGET=BUDGET)
    with carried.celery_app(server.url) as app:
        wait_until(lambda: _carries(app, queue))
        spilled = host.counts.get("spilled", 0)
        watermark(server, "0.00001")
        begun = time.monotonic()
        host.track(None, "kept")
        assert time.monotonic() - begun < BUDGET + SLACK
        assert host.counts["spilled"] == spilled + 1
        watermark(server, "0.9")
        wait_until(lambda: _carries(app, queue))
        assert "kept" in {*carried.stored_names()}
    assert "the broker takes events again" in caplog.text


def _carries(app: Any, queue: str) -> bool:
    """Whether the broker takes an event now."""
    host.track(None, "asked")
    return carried.take_in(app, queue) > 0 if not brokerage.office().breaker.is_open else False


def close_connections(server: Broker) -> None:
    """What a restart does to connections that rest."""
    if isinstance(server, RabbitMQ):
        control(server, "close_all_connections", "restart")
    else:
        redis.Redis(port=server.port).client_kill_filter(_type="normal")


def watermark(server: RabbitMQ, share: str) -> None:
    """Set which share of the machine's memory is too much."""
    control(server, "set_vm_memory_high_watermark", share)


def control(server: RabbitMQ, *arguments: str) -> None:
    program = Path(str(server.program())).with_name("rabbitmqctl")
    subprocess.run(
        [program, *arguments],
        env={**os.environ, **server._environment()},
        cwd=server.data,
        check=True,
        capture_output=True,
    )
