"""kill -9 of workers at random moments while events flow: each arrives once, and each is counted once."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter

import pymongo
import pytest
from django.db import connections, transaction

from pluginhost import host
from pluginhost.delivery import accounts
from tests.processes import end, nothing_waits, start, wait_until

EVENTS = int(os.environ.get("PLUGINHOST_TEST_EVENTS", "10000"))
KILLS = int(os.environ.get("PLUGINHOST_TEST_KILLS", "20"))
WORKERS = 2


class Killer(threading.Thread):
    """Keeps two workers running, and kills one of them again and again, after a random while at work."""

    def __init__(self, database: str) -> None:
        super().__init__(daemon=True)
        self.database = database
        self.kills = 0
        self.over = threading.Event()
        self.output: list[str] = []

    def run(self) -> None:
        workers = [start(self.database, "worker") for _ in range(WORKERS)]
        try:
            while not self.over.is_set():
                victim = random.randrange(WORKERS)
                assert workers[victim].stdout.readline().startswith("worker ")
                time.sleep(random.uniform(0.0, 0.6))
                self.output.append(end(workers[victim]))
                self.kills += 1
                workers[victim] = start(self.database, "worker")
        finally:
            for process in workers:
                self.output.append(end(process))


def emit(database: str, killer: Killer) -> dict[str, Counter[str]]:
    """Track events in all the ways that there are, for as long as it kills; what of it must arrive."""
    tracked: dict[str, Counter[str]] = {"names": Counter(), "ids": Counter()}
    number = 0

    def track() -> None:
        nonlocal number
        number += 1
        name = f"event {number % 7}"
        tracked["ids"][host.track(None, name, {"number": number}, using=database)] += 1
        tracked["names"][name] += 1

    while number < EVENTS:
        with transaction.atomic(using=database):
            for _ in range(5):
                track()
        with host.batch(using=database):
            for _ in range(40):
                track()
        track()
        with pytest.raises(RuntimeError), transaction.atomic(using=database):
            host.track(None, "undone", using=database)
            raise RuntimeError
        wait_until(lambda: killer.kills >= KILLS * number / EVENTS - 1)
    return tracked


@pytest.mark.kill
@pytest.mark.mongo
@pytest.mark.postgres
@pytest.mark.timeout(600)
@pytest.mark.django_db(databases="__all__", transaction=True)
def test_killed_workers_lose_nothing_and_count_nothing_twice(configure, mongodb):
    from pluginhost_timeseries.models import EventCount

    if "postgres" not in connections:
        pytest.skip("no PostgreSQL server")
    configure(
        "outbox",
        mongo={"URI": mongodb, "DATABASE": "kill", "TIMEOUT": 2, "RETRY_DELAY": 0.2},
        timeseries={"TIMEOUT": 2, "RETRY_DELAY": 0.2},
    )
    with pymongo.MongoClient(mongodb) as client:
        client.drop_database("kill")
        killer = Killer("postgres")
        killer.start()
        tracked = emit("postgres", killer)
        wait_until(lambda: killer.kills >= KILLS)
        killer.over.set()
        killer.join(30)
        survivor = start("postgres", "worker")
        try:
            wait_until(lambda: nothing_waits("postgres"), 120)
        finally:
            end(survivor)

        stored = Counter(str(document["_id"]) for document in client["kill"]["events"].find({}, {"_id": 1}))
    assert stored == tracked["ids"]
    counted = {row.name: row.count for row in EventCount.objects.using("postgres").all()}
    assert counted == tracked["names"]
    for lane, account in accounts.read("postgres").items():
        assert accounts.balances(account), (lane, account)
        assert (account["dead"], account["waiting"]) == (0, 0), (lane, account)
        assert account["delivered"] == sum(tracked["names"].values()), (lane, account)
    assert killer.kills >= KILLS
