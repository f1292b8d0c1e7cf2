"""From the outbox into storages: counters and documents."""

from __future__ import annotations

import datetime as dt
import gc
import itertools
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.boot import boot, is_installed
from benchmarks.contest import Contestant, play
from benchmarks.figures import Row
from benchmarks.filling import PRODUCTS, event, fill
from benchmarks.measuring import Figures, Run, Skipped, measures

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNTED = "From outbox row to counter, ledger included"
TRACKABLE = "django-trackable's way, a message at a time"

POSTGRES = Row("timeseries-postgres", f"{COUNTED}, PostgreSQL", TRACKABLE, "events/s", "least", 100)
SQLITE = Row("timeseries-sqlite", f"{COUNTED}, SQLite", TRACKABLE, "events/s", "least", 40)
MONGO = Row("mongo", "The lane, from delivery to document", "insert_many of the same", "events/s", "least", 0.8)


@measures(POSTGRES)
def timeseries_postgres(run: Run) -> Iterator[Figures]:
    return timeseries(run, POSTGRES, "postgres")


@measures(SQLITE)
def timeseries_sqlite(run: Run) -> Iterator[Figures]:
    return timeseries(run, SQLITE, "sqlite")


def timeseries(run: Run, row: Row, vendor: str) -> Iterator[Figures]:
    if not is_installed("timeseries"):
        raise Skipped("pluginhost-timeseries is not installed")
    results = play(
        {
            "ours": Contestant(counted_by_lane, run.places.database(vendor), run.size(10_000, 3_000)),
            "peer": Contestant(counted_one_by_one, run.places.database(vendor), run.size(500, 200)),
        },
        rounds=run.size(8, 4),
    )
    yield Figures(row.name, results["ours"], results["peer"])


def counted_by_lane(database: dict[str, Any], events: int) -> Iterator[float]:
    boot({"default": database}, {"timeseries": {}})
    from django.db.models import Sum

    from benchmarks.shop.models import Product, ProductData
    from pluginhost import host
    from pluginhost.workers.worker import be_a_worker, drain

    Product.objects.bulk_create(Product(name=str(number)) for number in range(PRODUCTS))
    be_a_worker()
    for turn in itertools.count(1):
        fill(events, "timeseries")
        begun = perf_counter()
        drain(host.registry.runners, "default")
        seconds = perf_counter() - begun
        total = ProductData.objects.aggregate(total=Sum("sales"))["total"]
        assert total == turn * events, f"{total} of {turn * events} events are counted"
        yield events / seconds


def counted_one_by_one(database: dict[str, Any], events: int) -> Iterator[float]:
    """What django-trackable 0.3.8 does for each message: get the row or make it, add to it, read it anew."""
    boot({"default": database}, {"timeseries": {}})
    from django.db.models import F, Sum

    from benchmarks.shop.models import OldProductData, Product
    from pluginhost.workers.worker import be_a_worker

    Product.objects.bulk_create(Product(name=str(number)) for number in range(PRODUCTS))
    keys = list(Product.objects.values_list("pk", flat=True))
    today = dt.datetime.now(dt.UTC).date()
    be_a_worker()  # what suits ours suits it
    for turn in itertools.count(1):
        begun = perf_counter()
        for index in range(events):
            row, _ = OldProductData.objects.get_or_create(parent_id=keys[index % PRODUCTS], collected_during=today)
            row.sales = F("sales") + 1  # type: ignore[assignment]
            row.save()
            OldProductData.objects.get(pk=row.pk)
        seconds = perf_counter() - begun
        total = OldProductData.objects.aggregate(total=Sum("sales"))["total"]
        assert total == turn * events, f"{total} of {turn * events} events are counted"
        yield events / seconds


@measures(MONGO)
def mongo(run: Run) -> Iterator[Figures]:
    if not is_installed("mongo"):
        raise Skipped("pluginhost-mongo is not installed")
    documents = run.size(5_000, 2_000)
    results = play(
        {
            "ours": Contestant(stored_by_lane, run.places.database("sqlite"), run.places.mongodb, documents),
            "peer": Contestant(stored_by_pymongo, run.places.mongodb, documents),
        },
        rounds=run.size(10, 4),
    )
    yield Figures(MONGO.name, results["ours"], results["peer"])


def stored_by_lane(database: dict[str, Any], uri: str, documents: int) -> Iterator[float]:
    boot({"default": database}, {"mongo": {"URI": uri, "DATABASE": "ours"}})
    from pymongo import MongoClient

    from pluginhost import host
    from pluginhost.delivery.intake import take
    from pluginhost.delivery.work import step
    from pluginhost.workers.worker import be_a_worker

    runner = host.registry.runners["mongo"]
    be_a_worker()
    client: MongoClient[dict[str, Any]] = MongoClient(uri)
    while True:
        fill(documents, "mongo")
        while take("default"):
            pass
        begun = perf_counter()
        while step(runner, "default"):
            pass
        seconds = perf_counter() - begun
        assert client["ours"]["events"].count_documents({}) == documents
        client["ours"]["events"].delete_many({})
        yield documents / seconds


def stored_by_pymongo(uri: str, documents: int) -> Iterator[float]:
    """The same documents, 500 at a time as the lane has them, ready made."""
    from pymongo import MongoClient

    from pluginhost_mongo.payload import document

    gc.freeze()  # as in a worker
    client: MongoClient[dict[str, Any]] = MongoClient(uri)
    while True:
        made = [document(event(index)) for index in range(documents)]
        begun = perf_counter()
        for start in range(0, documents, 500):
            client["peer"]["events"].insert_many(made[start : start + 500], ordered=False)
        seconds = perf_counter() - begun
        assert client["peer"]["events"].count_documents({}) == documents
        client["peer"]["events"].delete_many({})
        yield documents / seconds
