"""What one event costs whoever calls, on SQLite, against Segment's client, whose queue is in memory."""

from __future__ import annotations

from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

from benchmarks import sample
from benchmarks.boot import boot, four
from benchmarks.contest import Contestant, play
from benchmarks.figures import Row
from benchmarks.measuring import Figures, Run, measures
from benchmarks.receiver import SEGMENT, count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.http import HttpRequest

#: Seconds between two calls, as on a site that serves some 500 pages a second in each process.
SPACED = 0.002
IN_A_BATCH = 20

TRACK = Row("track", "One host.track in the view's transaction, calls 2 ms apart", "Segment", "µs", "most", 1.0)
BATCH = Row("batch", "20 events in host.batch, blocks 20 ms apart", "Segment, 20 calls", "µs an event", "most", 0.4)
TRACK_TIGHT = Row("track-tight", "One host.track, one after the other", "Segment", "µs", must=False)
BATCH_TIGHT = Row("batch-tight", "20 in host.batch, one after the other", "Segment", "µs an event", must=False)


@measures(TRACK, TRACK_TIGHT, BATCH, BATCH_TIGHT)
def caller(run: Run) -> Iterator[Figures]:
    url = run.places.receiver(SEGMENT)
    calls = run.size(500, 200)
    results = play(
        {
            "ours": Contestant(with_host, run.places.database("sqlite"), calls),
            "peer": Contestant(with_segment, run.places.database("sqlite"), calls, url),
        },
        rounds=run.size(12, 5),
    )
    for row in (TRACK, TRACK_TIGHT, BATCH, BATCH_TIGHT):
        ours, peer = ([turn[row.name] for turn in results[name]] for name in ("ours", "peer"))
        yield Figures(row.name, ours, peer)


def with_host(database: dict[str, Any], calls: int) -> Iterator[dict[str, float]]:
    boot({"default": database}, four())
    from pluginhost import host
    from pluginhost.models import Envelope

    def track(request: HttpRequest) -> None:
        host.track(request, sample.NAME, sample.PROPERTIES)

    def batch(request: HttpRequest) -> None:
        with host.batch():
            for _ in range(IN_A_BATCH):
                host.track(request, sample.NAME, sample.PROPERTIES)

    while True:
        yield _turn(track, batch, calls)
        events = sum(Envelope.objects.values_list("n", flat=True))
        assert events == _events(calls), f"{events} of {_events(calls)} events are in the outbox"
        Envelope.objects.all().delete()


def with_segment(database: dict[str, Any], calls: int, url: str) -> Iterator[dict[str, float]]:
    from segment.analytics import Client

    boot({"default": database})
    client = Client("key", host=url)

    def track(_: HttpRequest) -> None:
        client.track(sample.USER_ID, sample.NAME, sample.PROPERTIES, sample.CONTEXT)

    def batch(_: HttpRequest) -> None:
        for _ in range(IN_A_BATCH):
            client.track(sample.USER_ID, sample.NAME, sample.PROPERTIES, sample.CONTEXT)

    while True:
        before = count(url)
        yield _turn(track, batch, calls, client.flush)
        events = count(url) - before
        assert events == _events(calls), f"{events} of {_events(calls)} events came"
    client.join()


def _events(calls: int) -> int:
    """How many events a turn has."""
    return 2 * calls + 2 * (calls // IN_A_BATCH) * IN_A_BATCH


def _turn(
    track: Callable[[HttpRequest], None],
    batch: Callable[[HttpRequest], None],
    calls: int,
    flush: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Microseconds an event. After each part the queue is emptied, so that the others have the machine."""
    blocks = calls // IN_A_BATCH
    found = {}
    for row, act, requests, events, pause in (
        (TRACK, track, calls, 1, SPACED),
        (TRACK_TIGHT, track, calls, 1, 0.0),
        (BATCH, batch, blocks, IN_A_BATCH, SPACED * 10),
        (BATCH_TIGHT, batch, blocks, IN_A_BATCH, 0.0),
    ):
        found[row.name] = _seconds(act, requests, pause) / requests / events * 1e6
        flush()
    return found


def _seconds(act: Callable[[HttpRequest], None], count: int, pause: float) -> float:
    """Seconds of the calls alone, each for a request of its own, in a transaction that has begun to work.

    The mean counts, not the median: what a thread beside takes from a caller now and
    then is a part of the price.
    """
    from django.db import transaction

    requests = sample.requests(count)
    if not pause:
        with transaction.atomic():
            _order()
            begun = perf_counter()
            for request in requests:
                act(request)
            return perf_counter() - begun
    total = 0.0
    for request in requests:
        sleep(pause)
        with transaction.atomic():
            _order()
            begun = perf_counter()
            act(request)
            total += perf_counter() - begun
    return total


def _order() -> None:
    """The site's own row. Plain SQL: the site of the peer has no models."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO django_session (session_key, session_data, expire_date) VALUES (%s, '', %s)", _key()
        )


_number = 0


def _key() -> tuple[str, str]:
    global _number
    _number += 1
    return (str(_number), "2030-01-01 00:00:00")
