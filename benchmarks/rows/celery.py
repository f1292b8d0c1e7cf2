"""The transport and the workers over Celery, against a task an event."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

from benchmarks import places, sample
from benchmarks.boot import boot, environment, four, is_installed
from benchmarks.contest import Contestant, play
from benchmarks.figures import Row
from benchmarks.filling import PRODUCTS, fill
from benchmarks.measuring import Figures, Run, Skipped, measures
from benchmarks.receiver import MATOMO, count
from benchmarks.rows.caller import SPACED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

#: Seconds that a request would wait for the broker. So long that every event goes the way that is measured.
BUDGET = 30.0
#: Processes of the pool.
PROCESSES = 2
#: Seconds after which events that do not arrive are an error.
PATIENCE = 300.0

CALL = "One host.track with the transport celery, calls 2 ms apart"
RABBITMQ = Row(
    "celery-rabbitmq", f"{CALL}, RabbitMQ, confirmed", "delay, confirmed", "µs", "most", 0.7, must=False
)  # fmt: skip
VALKEY = Row("celery-valkey", f"{CALL}, Valkey", "delay", "µs", must=False)

NO_OP = "Celery, a task an event that does nothing"
WORKERS = Row(
    "celery-workers",
    f"From the outbox through Celery's workers to all four plugins, PostgreSQL, RabbitMQ, {PROCESSES} processes",
    NO_OP,
    "events/s",
    "least",
    10,
    must=False,
)
LANES = Row(
    "celery-workers-lanes", "The same with four lanes that do nothing", NO_OP, "events/s", must=False
)  # fmt: skip


@measures(RABBITMQ)
def rabbitmq(run: Run) -> Iterator[Figures]:
    return calls(run, RABBITMQ, run.places.rabbitmq, {"broker_transport_options": {"confirm_publish": True}})


@measures(VALKEY)
def valkey(run: Run) -> Iterator[Figures]:
    return calls(run, VALKEY, run.places.valkey, {})


def calls(run: Run, row: Row, broker: str, conf: dict[str, Any]) -> Iterator[Figures]:
    number = run.size(300, 100)
    results = play(
        {
            "ours": Contestant(with_host, run.places.database("sqlite"), broker, number),
            "peer": Contestant(with_delay, run.places.database("sqlite"), broker, conf, number),
        },
        rounds=run.size(12, 3),
    )
    yield Figures(row.name, results["ours"], results["peer"])


def with_host(database: dict[str, Any], broker: str, number: int) -> Iterator[float]:
    """The host asks for confirms itself, whatever the site has set."""
    queue = _a_queue(broker, {})
    boot({"default": database}, four(), {"TRANSPORT": "celery", "INGEST_QUEUE": queue, "BROKER_BUDGET": BUDGET})
    from pluginhost import host
    from pluginhost.models import Envelope

    def act(request: Any) -> None:
        host.track(request, sample.NAME, sample.PROPERTIES)

    for result in _turns(act, queue, number):
        assert not Envelope.objects.exists(), "the broker did not confirm in time"
        yield result


def with_delay(database: dict[str, Any], broker: str, conf: dict[str, Any], number: int) -> Iterator[float]:
    queue = _a_queue(broker, conf)
    boot({"default": database})
    from benchmarks.shop.tasks import deliver

    def act(_: Any) -> None:
        deliver.delay(sample.USER_ID, sample.NAME, sample.PROPERTIES, sample.CONTEXT)

    yield from _turns(act, queue, number)


def _a_queue(broker: str, conf: dict[str, Any]) -> str:
    """The name of a new queue on this broker, which the site's tasks go to; says so to the site."""
    name = f"benchmarks-{uuid.uuid4().hex[:12]}"
    os.environ.update(_of_celery(broker, name, conf))
    return name


def _of_celery(broker: str, queue: str, conf: dict[str, Any]) -> dict[str, str]:
    return {"BENCHMARKS_BROKER": broker, "BENCHMARKS_CELERY": json.dumps({"task_default_queue": queue, **conf})}


@contextmanager
def _looking_at(queue: str) -> Iterator[Any]:
    """A channel to the broker. The queue goes at the end."""
    from benchmarks.shop.tasks import app

    with app.connection_for_read() as connection:
        channel = connection.default_channel
        try:
            yield channel
        finally:
            channel.queue_delete(queue)


def _waiting(channel: Any, queue: str) -> int:
    return int(channel.queue_declare(queue, durable=True, auto_delete=False).message_count)


def _turns(act: Callable[[Any], None], queue: str, number: int) -> Iterator[float]:
    """Microseconds a call, their mean, each for a request of its own. All messages are there afterwards."""
    with _looking_at(queue) as channel:
        while True:
            total = 0.0
            for request in sample.requests(number):
                sleep(SPACED)
                begun = perf_counter()
                act(request)
                total += perf_counter() - begun
            arrived = _waiting(channel, queue)
            assert arrived == number, f"{arrived} of {number} messages are in the queue"
            channel.queue_purge(queue)
            yield total / number * 1e6


@measures(WORKERS, LANES)
def workers(run: Run) -> Iterator[Figures]:
    if missing := [name for name in ("kissmetrics", "piwik", "mongo", "timeseries") if not is_installed(name)]:
        raise Skipped(f"not installed: {', '.join(missing)}")
    broker, events = run.places.rabbitmq, run.size(6_000, 2_000)
    contestants = {"peer": Contestant(executed, broker, run.size(4_000, 2_000))}
    if WORKERS.name in run.wanted:
        mongodb = run.places.mongodb
        contestants["four"] = Contestant(delivered, run.places.database("postgres"), broker, events, mongodb)
    if LANES.name in run.wanted:
        contestants["lanes"] = Contestant(delivered, run.places.database("postgres"), broker, 2 * events, None)
    results = play(contestants, rounds=run.size(4, 1), warm_up=run.size(1, 0))
    for row, name in ((WORKERS, "four"), (LANES, "lanes")):
        if name in results:
            yield Figures(row.name, results[name], results["peer"])


def executed(broker: str, events: int) -> Iterator[float]:
    """Tasks that wait in the queue when the workers start, from the first of them to the last."""
    os.environ.update(environment({}, None))
    queue = _a_queue(broker, {})
    notes = Path(tempfile.mkdtemp(prefix="pluginhost-bench-")) / "notes"
    env = {**os.environ, "BENCHMARKS_NOTES": str(notes)}
    from benchmarks.shop.tasks import note

    with ExitStack() as ending:
        ending.callback(notes.parent.rmdir)
        ending.callback(notes.unlink, missing_ok=True)
        channel = ending.enter_context(_looking_at(queue))
        while True:
            notes.write_bytes(b"")
            for _ in range(events):
                note.delay(sample.USER_ID, sample.NAME, sample.PROPERTIES, sample.CONTEXT)
            _wait_until(lambda: _waiting(channel, queue) == events, 0.05)  # unconfirmed: they may be on their way
            with _celery("worker", *_POOL, env=env):
                _wait_until(lambda: notes.stat().st_size > 0, 0.001)
                begun = perf_counter()
                _wait_until(lambda: notes.stat().st_size >= events, 0.01)
                seconds = perf_counter() - begun
            assert notes.stat().st_size == events
            yield events / seconds


def delivered(database: dict[str, Any], broker: str, events: int, mongodb: str | None) -> Iterator[float]:
    """Events that wait in the outbox when the workers start, from the first that is taken to the last in each lane.

    Without a MongoDB the lanes do nothing.
    """
    with ExitStack() as ending:
        everything = _Everything(ending, mongodb) if mongodb else None
        plugins = everything.plugins if everything else {lane: {"PLUGIN": "nothing"} for lane in _FOUR}
        queue = _a_queue(broker, {})
        settings = {"WORKER": "celery"}
        boot({"default": database}, plugins, settings)
        env = environment({"default": database}, plugins, settings)
        from django.db import connection

        from benchmarks.shop.models import Product
        from pluginhost.delivery import accounts
        from pluginhost.models import Envelope

        Product.objects.bulk_create(Product(name=str(number)) for number in range(PRODUCTS))
        channel = ending.enter_context(_looking_at(queue))
        schedule = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="pluginhost-bench-"))) / "schedule"
        for turn in itertools.count(1):
            fill(events, ",".join(_FOUR))
            first = Envelope.objects.earliest("id")
            _waiting(channel, queue)
            channel.queue_purge(queue)  # what beat has sent last

            def begins(first: Envelope = first) -> bool:
                return not Envelope.objects.filter(pk=first.pk).exists()

            def ends(expected: int = turn * events) -> bool:
                found = accounts.read("default")
                return all(found.get(lane, {}).get("delivered", 0) >= expected for lane in _FOUR)

            with _celery("worker", *_POOL, env=env), _celery("beat", "--schedule", str(schedule), env=env):
                _wait_until(begins, 0.005)
                begun = perf_counter()
                _wait_until(ends, 0.05)
                seconds = perf_counter() - begun
            if everything:
                everything.has(turn * events)
            connection.close()
            yield events / seconds


_FOUR = ("kissmetrics", "piwik", "mongo", "timeseries")
_POOL = ("--pool", "prefork", "--concurrency", str(PROCESSES), "--without-gossip", "--without-mingle")


def _celery(command: str, *arguments: str, env: dict[str, str]) -> AbstractContextManager[Any]:
    """One of Celery's own commands, without its banner. It warns whoever is root, as one is in containers."""
    celery = [sys.executable, "-W", "ignore", "-m", "celery", "-A", "benchmarks.shop.tasks", "--skip-checks", "-q"]
    return places.process(*celery, command, "--loglevel", "ERROR", *arguments, env=env, stdout=subprocess.DEVNULL)


class _Everything:
    """The four plugins, and what stands for their receivers."""

    def __init__(self, ending: ExitStack, mongodb: str) -> None:
        from pymongo import MongoClient

        self._calls = ending.enter_context(places.receiver())
        self._hits = ending.enter_context(places.receiver(MATOMO))
        self._documents = ending.enter_context(MongoClient[dict[str, Any]](mongodb))["celery"]["events"]
        found = four(self._calls, mongodb)
        self.plugins = {name: dict(found[name]) for name in _FOUR}
        self.plugins["piwik"]["URL"] = self._hits
        self.plugins["mongo"]["DATABASE"] = "celery"

    def has(self, expected: int) -> None:
        """Each of them got so many events, and none twice."""
        from django.db.models import Sum

        from benchmarks.shop.models import ProductData

        found = {
            "kissmetrics": count(self._calls),
            "piwik": count(self._hits),
            "mongo": self._documents.count_documents({}),
            "timeseries": ProductData.objects.aggregate(total=Sum("sales"))["total"],
        }
        assert set(found.values()) == {expected}, f"{expected} events were tracked; there are {found}"


def _wait_until(true: Callable[[], bool], pause: float) -> None:
    end = perf_counter() + PATIENCE
    while not true():
        if perf_counter() > end:
            raise RuntimeError(f"the events did not arrive within {PATIENCE:.0f} s")
        time.sleep(pause)
