"""Lanes of providers, against one request after the other."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks import places
from benchmarks.boot import boot, environment, four, is_installed
from benchmarks.contest import Contestant, play
from benchmarks.figures import Row
from benchmarks.filling import event, fill
from benchmarks.measuring import Figures, Run, Skipped, measures
from benchmarks.receiver import MATOMO, count
from benchmarks.rows.flow import arrived

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pluginhost.events import Event

#: Seconds that the far provider takes to answer.
FAR = 0.03
#: Batches at a time of the lane that asks the far provider.
CONCURRENCY = 16
#: Events of each delivery that waits: what a busy site tracks between two looks of the worker.
CHUNK = 100

PIWIK = Row("matomo", "Matomo's lane", "requests, one an event", "events/s", "least", 30, must=False)
KISSMETRICS = Row(
    "kissmetrics",
    f"KISSmetrics' lane with CONCURRENCY {CONCURRENCY}, the provider 30 ms away",
    "requests with a session, one after the other",
    "events/s",
    "least",
    12,
    must=False,
)


@measures(PIWIK)
def matomo(run: Run) -> Iterator[Figures]:
    return lane(run, PIWIK, "piwik", MATOMO, 0.0, run.size(20_000, 5_000), run.size(1_000, 300))


@measures(KISSMETRICS)
def kissmetrics(run: Run) -> Iterator[Figures]:
    # A batch for each of its threads at least, or some would have nothing to do.
    return lane(run, KISSMETRICS, "kissmetrics", "", FAR, run.size(8_000, CONCURRENCY * CHUNK), run.size(100, 30))


def lane(run: Run, row: Row, alias: str, marker: str, delay: float, ours: int, peers: int) -> Iterator[Figures]:
    if not is_installed(alias):
        raise Skipped(f"pluginhost-{alias} is not installed")
    results = play(
        {
            "ours": Contestant(delivered, run.places.database("sqlite"), alias, marker, delay, ours),
            "peer": Contestant(requested, alias, delay, peers),
        },
        rounds=run.size(5, 2),
    )
    yield Figures(row.name, results["ours"], results["peer"])


def delivered(database: dict[str, Any], alias: str, marker: str, delay: float, events: int) -> Iterator[float]:
    """What a worker process brings to the receiver, from its start on events that wait to the last of them."""
    with ExitStack() as ending:
        url = ending.enter_context(places.receiver(marker, delay=delay))
        options = dict(four(url)[alias])
        if delay:
            options["CONCURRENCY"] = CONCURRENCY
        boot({"default": database}, {alias: options})
        from pluginhost.delivery.intake import take

        env = environment({"default": database}, {alias: options})
        for turn in itertools.count(1):
            for _ in range(events // CHUNK):
                fill(CHUNK, alias)
                take("default")
            first = (turn - 1) * events + 1
            with places.worker(env):
                begun = arrived(url, first)
                already = count(url) - first + 1  # the clock starts behind these
                yield (events - already) / (arrived(url, turn * events) - begun)


def requested(alias: str, delay: float, events: int) -> Iterator[float]:
    """The plugin's own parameters, each event in a request; for the far provider over one connection that is kept."""
    import requests

    def hit(made: Event) -> dict[str, str]:
        if alias == "piwik":
            from pluginhost_piwik.payload import Site, hits

            return hits(made, Site(1), made.timestamp)[0]
        from pluginhost_kissmetrics.payload import call, moment, parameters

        return parameters(call(made, alias), "0" * 40, moment(made))

    with places.receiver("", delay=delay) as url:
        session = requests.Session()
        get = session.get if delay else requests.get
        for turn in itertools.count(1):
            sent = [hit(event(index)) for index in range(events)]
            begun = perf_counter()
            for parameters_ in sent:
                get(url, params=parameters_, timeout=10).raise_for_status()
            seconds = perf_counter() - begun
            assert count(url) == turn * events
            yield events / seconds
