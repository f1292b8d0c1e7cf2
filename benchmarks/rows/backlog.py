"""Whether a large backlog, or a long life, costs anything."""

from __future__ import annotations

import os
import time
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks import places, sample
from benchmarks.boot import boot, environment
from benchmarks.contest import Contestant, play
from benchmarks.figures import Row
from benchmarks.filling import fill_with_copies
from benchmarks.measuring import Figures, Run, measures

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LANES = ("one", "two", "three", "four")
TAKEN = "One event through a worker and four lanes that do nothing, a million waiting (short: 50,000)"
ACCEPTED = "One host.track, a million waiting (short: 50,000)"
NONE = "none waiting"
FIRST = 1000
#: Events after which intake and all lanes have been at work at the same time: with the first thousand the one ends
#: before the others begin.
WARM = 20_000
#: SQLite keeps 2 MiB of pages for each connection, so for each thread of a worker, which it takes some 100,000 events
#: to fill. What else grows shows with 100 KiB (https://sqlite.org/pragma.html#pragma_cache_size).
SMALL_CACHES = "PRAGMA cache_size=-100;"

POSTGRES = Row("backlog-postgres", f"{TAKEN}, PostgreSQL", NONE, "µs an event and lane", "most", 1.2)
POSTGRES_TRACK = Row("backlog-postgres-track", f"{ACCEPTED}, PostgreSQL", NONE, "µs", "most", 1.2)
SQLITE = Row("backlog-sqlite", f"{TAKEN}, SQLite", NONE, "µs an event and lane", "most", 1.2)
SQLITE_TRACK = Row("backlog-sqlite-track", f"{ACCEPTED}, SQLite", NONE, "µs", "most", 1.2)
MEMORY = Row(
    "memory",
    "Memory of a worker after a million events (short: 30,000), SQLite's page caches kept small",
    f"after the first {WARM:,}",
    "MiB",
    "most",
    1.05,
)


@measures(POSTGRES, POSTGRES_TRACK)
def backlog_postgres(run: Run) -> Iterator[Figures]:
    return backlog(run, "postgres", POSTGRES, POSTGRES_TRACK)


@measures(SQLITE, SQLITE_TRACK)
def backlog_sqlite(run: Run) -> Iterator[Figures]:
    return backlog(run, "sqlite", SQLITE, SQLITE_TRACK)


def backlog(run: Run, vendor: str, taken: Row, accepted: Row) -> Iterator[Figures]:
    events = run.size(5_000, 1_000)
    results = play(
        {
            "ours": Contestant(worked, run.places.database(vendor), events, run.size(1_000_000, 50_000)),
            "peer": Contestant(worked, run.places.database(vendor), events, 0),
        },
        rounds=run.size(8, 4),
    )
    for row, key in ((taken, "deliver"), (accepted, "accept")):
        yield Figures(row.name, *([turn[key] for turn in results[name]] for name in ("ours", "peer")))


def nothing() -> dict[str, dict[str, Any]]:
    return {lane: {"PLUGIN": "nothing"} for lane in LANES}


def worked(database: dict[str, Any], events: int, waiting: int) -> Iterator[dict[str, float]]:
    """As many events in as out, the oldest first: what waits stays."""
    boot({"default": database}, nothing())
    from pluginhost import host
    from pluginhost.delivery.intake import take
    from pluginhost.delivery.work import step
    from pluginhost.models import Delivery, Envelope

    if waiting:
        fill_with_copies(waiting, ",".join(LANES))
    runners = host.registry.runners.values()
    while True:
        requests = sample.requests(events)
        begun = perf_counter()
        for request in requests:
            host.track(request, sample.NAME, sample.PROPERTIES)
        accepted = perf_counter()
        taken = 0
        while taken < events:
            taken += take("default")
            for runner in runners:
                while step(runner, "default"):
                    pass
        ended = perf_counter()
        assert Envelope.objects.count() == waiting
        assert not Delivery.objects.exists()
        yield {"accept": (accepted - begun) / events * 1e6, "deliver": (ended - accepted) / events / len(LANES) * 1e6}


@measures(MEMORY)
def memory(run: Run) -> Iterator[Figures]:
    usual, small = (run.places.database("sqlite") for _ in range(2))
    small["OPTIONS"]["init_command"] += SMALL_CACHES
    beside = run.size(200_000, 30_000)
    results = play(
        {
            "ours": Contestant(lived, small, run.size(1_000_000, 30_000)),
            "usual": Contestant(lived, usual, beside),
        },
        rounds=1,
        warm_up=0,
    )
    (life,), (other,) = results["ours"], results["usual"]
    note = (
        f"{life['first']:.1f} MiB after the first {FIRST:,}; after each tenth of the rest:"
        f" {', '.join(f'{each:.1f}' for each in life['tenths'])}; with SQLite's usual caches {other['first']:.1f} after"
        f" the first {FIRST:,}, {other['warm']:.1f} after {WARM:,}, {other['tenths'][-1]:.1f} after {beside:,} more"
    )
    yield Figures(MEMORY.name, [life["tenths"][-1]], [life["warm"]], note)


def lived(database: dict[str, Any], events: int) -> Iterator[dict[str, Any]]:
    """A worker that is looked at from outside: twice at first, and after each tenth of so many events more."""
    boot({"default": database}, nothing())
    from pluginhost.delivery import accounts

    def through(expected: int) -> None:
        while True:
            found = accounts.read("default")
            if found and all(each["delivered"] == expected for each in found.values()):
                return
            time.sleep(0.5)

    with places.worker(environment({"default": database}, nothing())) as process:

        def after(so_many: Iterable[int]) -> Iterator[float]:
            done = 0
            for each in so_many:
                fill_with_copies(each - done, ",".join(LANES))
                through(each)
                done = each
                yield resident(process.pid)

        first, warm, *tenths = after([FIRST, WARM, *(WARM + tenth * (events // 10) for tenth in range(1, 11))])
        yield {"first": first, "warm": warm, "tenths": tenths}


def resident(pid: int) -> float:
    """Resident memory of a process in MiB (Linux, proc(5))."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
