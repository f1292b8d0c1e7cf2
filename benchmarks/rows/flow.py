"""From the call to the receiver: durable here, in memory there."""

from __future__ import annotations

import time
from contextlib import ExitStack
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks import places, sample
from benchmarks.boot import boot, environment
from benchmarks.contest import Contestant, play
from benchmarks.figures import Row
from benchmarks.measuring import Figures, Run, measures
from benchmarks.receiver import BULK, SEGMENT, count

if TYPE_CHECKING:
    from collections.abc import Iterator

FLOW = Row(
    "flow", "From track to a provider that takes 100 a POST, SQLite, one worker", "Segment", "events/s", "least", 0.85
)


@measures(FLOW)
def flow(run: Run) -> Iterator[Figures]:
    events = run.size(60_000, 6_000)
    results = play(
        {
            "ours": Contestant(with_host, run.places.database("sqlite"), events),
            "peer": Contestant(with_segment, events),
        },
        rounds=run.size(6, 3),
    )
    yield Figures(FLOW.name, results["ours"], results["peer"])


def arrived(url: str, expected: int, *, seconds: float = 120) -> float:
    """When the last of so many events had come. Raises ``RuntimeError`` if they do not."""
    end = perf_counter() + seconds
    while (now := perf_counter()) < end:
        if count(url) >= expected:
            return now
        time.sleep(0.01)
    raise RuntimeError(f"{count(url)} of {expected} events came within {seconds} s")


def bulk(url: str) -> dict[str, dict[str, Any]]:
    return {"bulk": {"URL": url}}


def with_host(database: dict[str, Any], events: int) -> Iterator[float]:
    with ExitStack() as ending:
        url = ending.enter_context(places.receiver(BULK))
        boot({"default": database}, bulk(url))
        from pluginhost import host

        ending.enter_context(places.worker(environment({"default": database}, bulk(url))))
        expected = 0
        while True:
            expected += events
            begun = perf_counter()
            for _ in range(events):
                host.track(None, sample.NAME, sample.PROPERTIES, user_id=sample.USER_ID)
            ended = arrived(url, expected)
            assert count(url) == expected, "some came twice"
            yield events / (ended - begun)


def with_segment(events: int) -> Iterator[float]:
    """With a queue that is large enough: with its usual one most of the events would be lost."""
    from segment.analytics import Client

    with places.receiver(SEGMENT) as url:
        client = Client("key", host=url, max_queue_size=events)
        expected = 0
        while True:
            expected += events
            begun = perf_counter()
            for _ in range(events):
                client.track(sample.USER_ID, sample.NAME, sample.PROPERTIES)
            yield events / (arrived(url, expected) - begun)
