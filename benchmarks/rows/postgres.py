"""What tracking adds to a transaction on PostgreSQL, against a bare INSERT of the same bytes."""

from __future__ import annotations

import uuid
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks import sample
from benchmarks.boot import boot, four
from benchmarks.contest import Contestant, play
from benchmarks.figures import Row
from benchmarks.measuring import Figures, Run, measures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

IN_A_BATCH = 20
WHAT = "A transaction with one row of the site's own and"

ONE = Row("postgres", f"{WHAT} one host.track", "cursor INSERT", "µs a transaction", "most", 1.3)
BATCH = Row(
    "postgres-batch", f"{WHAT} 20 events in host.batch", "cursor INSERT of the 20", "µs a transaction", "most", 1.3
)
ROWS = Row(
    "postgres-batch-rows", f"{WHAT} 20 events in host.batch", "INSERT of 20 rows", "µs a transaction", must=False
)
PLAIN = Row("postgres-plain", f"{WHAT} one host.track", "no event", "µs a transaction", must=False)


@measures(ONE, BATCH, ROWS, PLAIN)
def postgres(run: Run) -> Iterator[Figures]:
    calls = run.size(300, 100)
    contestants = {
        name: Contestant(function, run.places.database("postgres"), calls, *arguments)
        for name, function, arguments in (
            ("host", with_host, ()),
            ("one", with_cursor, (1, 1)),
            ("batch", with_cursor, (1, IN_A_BATCH)),
            ("rows", with_cursor, (IN_A_BATCH, 1)),
            ("plain", without, ()),
        )
    }
    results = play(contestants, rounds=run.size(15, 4))
    one, batch = ([turn[name] for turn in results["host"]] for name in ("one", "batch"))
    yield Figures(ONE.name, one, results["one"])
    yield Figures(BATCH.name, batch, results["batch"])
    yield Figures(ROWS.name, batch, results["rows"])
    yield Figures(PLAIN.name, one, results["plain"])


def with_host(database: dict[str, Any], calls: int) -> Iterator[dict[str, float]]:
    boot({"default": database}, four())
    from pluginhost import host

    def track(request: Any) -> None:
        host.track(request, sample.NAME, sample.PROPERTIES)

    def batch(request: Any) -> None:
        with host.batch():
            for _ in range(IN_A_BATCH):
                host.track(request, sample.NAME, sample.PROPERTIES)

    while True:
        yield {"one": _turn(track, calls, 1), "batch": _turn(batch, calls, IN_A_BATCH)}


def with_cursor(database: dict[str, Any], calls: int, rows: int, events: int) -> Iterator[float]:
    """What the host stores, ready made: so many rows of so many events."""
    boot({"default": database}, four())
    from django.db import connection

    from pluginhost import host
    from pluginhost.models import Envelope

    with host.batch():
        for request in sample.requests(events):
            host.track(request, sample.NAME, sample.PROPERTIES)
    stored = Envelope.objects.get()
    payload = bytes(stored.payload)
    one = "(%s, %s, %s, %s, %s)"
    sql = "INSERT INTO pluginhost_envelope (envelope_id, version, lanes, n, payload) VALUES " + ", ".join([one] * rows)

    def insert(_: Any) -> None:
        values: Sequence[Any] = [
            value for _ in range(rows) for value in (uuid.uuid4(), stored.version, stored.lanes, events, payload)
        ]
        with connection.cursor() as cursor:
            cursor.execute(sql, values)

    while True:
        yield _turn(insert, calls, rows * events)


def without(database: dict[str, Any], calls: int) -> Iterator[float]:
    boot({"default": database}, four())
    while True:
        yield _turn(lambda _: None, calls, 0)


def _turn(act: Callable[[Any], None], calls: int, events: int) -> float:
    """Microseconds a transaction, from BEGIN to the answer to COMMIT. Each leaves so many events in the outbox."""
    from django.db import connection, transaction

    requests = sample.requests(calls)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE pluginhost_envelope, shop_order")
    begun = perf_counter()
    for request in requests:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO shop_order (number) VALUES (%s)", ("A-20931",))
            act(request)
    seconds = perf_counter() - begun
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), (SELECT coalesce(sum(n), 0) FROM pluginhost_envelope) FROM shop_order")
        assert cursor.fetchone() == (calls, calls * events), "not all of it was stored"
    return seconds / calls * 1e6
