"""kill -9 of workers at random moments while events flow, and what has to be true when it is over."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pymongo
import pytest
from django.db import connections, transaction

from pluginhost import host
from pluginhost.delivery import accounts
from pluginhost.models import Delivery
from tests.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def size(events: int, kills: int) -> tuple[int, int]:
    """Events and kills: those of a short form, or what the environment says."""
    return (
        int(os.environ.get("PLUGINHOST_TEST_EVENTS", events)),
        int(os.environ.get("PLUGINHOST_TEST_KILLS", kills)),
    )


class Victim(Protocol):
    """A worker."""

    def ready(self) -> Victim:
        """Wait until it works."""
        ...

    def kill(self) -> None:
        """kill -9, and with it all that it has started."""
        ...


class Killer(threading.Thread):
    """Keeps workers running, and kills one of them again and again, after a random while at work."""

    def __init__(self, start: Callable[[], Victim], kills: int, workers: int) -> None:
        super().__init__(daemon=True)
        self.start_one = start
        self.wanted = kills
        self.workers = workers
        self.kills = 0
        self.workers_killed = 0
        """Those that it kills in the end, too."""
        self.over = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        herd: list[Victim] = []
        try:
            herd += [self.start_one() for _ in range(self.workers)]
            while not self.over.is_set() and self.kills < self.wanted:
                number = random.randrange(self.workers)
                herd[number].ready()
                time.sleep(random.uniform(0.0, 0.6))
                self.hit(herd, number)
            self.over.wait()
        except BaseException as error:
            self.error = error
        finally:
            for victim in herd:
                victim.kill()
            self.workers_killed += len(herd)

    def hit(self, herd: list[Victim], number: int) -> None:
        herd[number].kill()
        self.kills += 1
        self.workers_killed += 1
        herd[number] = self.start_one()

    @property
    def done(self) -> bool:
        """Whether it has killed as often as it should."""
        if self.error is not None:
            raise AssertionError("the killer failed") from self.error
        return self.kills >= self.wanted


@dataclass
class Traffic:
    """Events that were tracked, and so have to arrive."""

    names: Counter[str] = field(default_factory=Counter)
    """Name -> how often."""
    ids: dict[str, str] = field(default_factory=dict)
    """Message id -> name."""
    flushes: list[set[str]] = field(default_factory=list)
    """Message ids of each envelope."""
    workers_killed: int = 0

    def track(self, database: str) -> str:
        name = f"event {len(self.ids) % 7}"
        message_id = host.track(None, name, {"number": len(self.ids)}, using=database)
        assert message_id is not None
        self.ids[message_id] = name
        self.names[name] += 1
        return message_id

    def flow(self, database: str, events: int, keep_pace: Callable[[float], bool]) -> None:
        """Track events in all the ways that there are. ``keep_pace`` says whether so much of them may have been."""
        while len(self.ids) < events:
            with transaction.atomic(using=database):
                self.flushes += [{self.track(database)} for _ in range(5)]
            with host.batch(using=database):
                self.flushes.append({self.track(database) for _ in range(40)})
            self.flushes.append({self.track(database)})
            with pytest.raises(RuntimeError), transaction.atomic(using=database):
                host.track(None, "undone", using=database)
                raise RuntimeError
            wait_until(lambda: keep_pace(len(self.ids) / events), 120)

    def without(self, lost: set[str]) -> Traffic:
        """The same without what was lost."""
        left = {message_id: name for message_id, name in self.ids.items() if message_id not in lost}
        return Traffic(Counter(left.values()), left)


@contextmanager
def killing(
    database: str,
    start: Callable[[], Victim],
    *,
    events: int,
    kills: int,
    workers: int = 2,
    killer: type[Killer] = Killer,
) -> Iterator[Traffic]:
    """Track so many events while a killer kills so often. In the block nobody kills any more, and no worker is left."""
    traffic = Traffic()
    thread = killer(start, kills, workers)
    thread.start()
    try:
        traffic.flow(database, events, lambda part: thread.done or thread.kills >= kills * part - 1)
        wait_until(lambda: thread.done, 120)
    finally:
        thread.over.set()
        thread.join(60)
    traffic.workers_killed = thread.workers_killed
    yield traffic


def stored_in(uri: str) -> Counter[str]:
    """Message ids in MongoDB."""
    with pymongo.MongoClient(uri) as client:
        return Counter(str(document["_id"]) for document in client["kill"]["events"].find({}, {"_id": 1}))


def forget_all(uri: str) -> None:
    with pymongo.MongoClient(uri) as client:
        client.drop_database("kill")


def plugins(uri: str, timeout: float = 2) -> dict[str, dict[str, Any]]:
    """Options of a plugin that stores each event and of one that counts, with short leases."""
    return {
        "mongo": {"URI": uri, "DATABASE": "kill", "TIMEOUT": timeout, "RETRY_DELAY": 0.2},
        "timeseries": {"TIMEOUT": timeout, "RETRY_DELAY": 0.2},
    }


def assert_all_arrived_once(database: str, uri: str, traffic: Traffic, *, carried: bool = False) -> None:
    """Every event is in MongoDB once, every counter is exact, every account balances.

    An envelope that a broker ``carried`` may come twice: then it is accepted twice.
    """
    from pluginhost_timeseries.models import EventCount

    dead = Delivery.objects.using(database).filter(state=Delivery.State.DEAD)
    assert list(dead.values_list("lane", "reason", "attempts", "kills")) == []
    stored = stored_in(uri)
    missing, strange = traffic.ids.keys() - stored.keys(), stored.keys() - traffic.ids.keys()
    assert (len(missing), len(strange), max(stored.values(), default=0)) == (0, 0, 1)
    assert {row.name: row.count for row in EventCount.objects.using(database).all()} == traffic.names
    found = accounts.read(database)
    assert sorted(found) == ["mongo", "timeseries"]
    for lane, account in found.items():
        assert accounts.balances(account), (lane, account)
        assert (account["dead"], account["waiting"]) == (0, 0), (lane, account)
        assert account["delivered"] == len(traffic.ids) or carried, (lane, account)
        assert account["delivered"] >= len(traffic.ids), (lane, account)


def need_postgres() -> str:
    """The alias of the database that they run on."""
    if "postgres" not in connections:
        pytest.skip("no PostgreSQL server")
    return "postgres"
