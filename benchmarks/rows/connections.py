"""What it costs to connect to the database for each request anew: ``CONN_MAX_AGE`` 0, which is Django's default."""

from __future__ import annotations

from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

from benchmarks import sample
from benchmarks.boot import boot, four
from benchmarks.contest import Contestant, play
from benchmarks.figures import Row
from benchmarks.measuring import Figures, Run, measures
from benchmarks.rows.caller import SPACED

if TYPE_CHECKING:
    from collections.abc import Iterator

WHAT = "One host.track, and the connection closed (CONN_MAX_AGE 0), calls 2 ms apart"
KEPT = "the connection kept"

SQLITE = Row("connection-sqlite", f"{WHAT}, SQLite", KEPT, "µs", must=False)
POSTGRES = Row("connection-postgres", f"{WHAT}, PostgreSQL", KEPT, "µs", must=False)


@measures(SQLITE)
def sqlite(run: Run) -> Iterator[Figures]:
    return connections(run, SQLITE, "sqlite")


@measures(POSTGRES)
def postgres(run: Run) -> Iterator[Figures]:
    return connections(run, POSTGRES, "postgres")


def connections(run: Run, row: Row, vendor: str) -> Iterator[Figures]:
    calls = run.size(300, 100)
    results = play(
        {
            "ours": Contestant(tracked, run.places.database(vendor), calls, True),
            "peer": Contestant(tracked, run.places.database(vendor), calls, False),
        },
        rounds=run.size(10, 3),
    )
    yield Figures(row.name, results["ours"], results["peer"])


def tracked(database: dict[str, Any], calls: int, closing: bool) -> Iterator[float]:
    """Microseconds a call, each for a request of its own and in its own transaction.

    Another connection is open all the time, as a worker's is: SQLite tidies up when the last one closes.
    """
    boot({"default": database}, four())
    from django.db import connection

    from pluginhost import host
    from pluginhost.models import Envelope

    beside = connection.copy()
    with beside.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pluginhost_envelope")
    while True:
        total = 0.0
        for request in sample.requests(calls):
            sleep(SPACED)
            begun = perf_counter()
            host.track(request, sample.NAME, sample.PROPERTIES)
            if closing:
                connection.close()
            total += perf_counter() - begun
        assert Envelope.objects.count() == calls
        Envelope.objects.all().delete()
        yield total / calls * 1e6
