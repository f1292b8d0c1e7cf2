"""What a page costs that tracks: gunicorn with two workers, four visitors."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from benchmarks import places, sample
from benchmarks.boot import FILTERS, boot, environment, four
from benchmarks.contest import Contestant, play
from benchmarks.figures import Row
from benchmarks.measuring import Figures, Run, measures
from benchmarks.receiver import SEGMENT, count
from benchmarks.visitors import Visitors
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds in which something more arrives, if anything does: Segment's client uploads twice a second.
CALM = 2.0

PROCESSES, THREADS, CONNECTIONS = 2, 2, 4

WHAT = "A Django page with the middleware and one host.track, SQLite"
AGAINST_SEGMENT = Row("page-segment", WHAT, "with Segment", "pages/s", "least", 0.93)
AGAINST_CELERY = Row("page-celery", WHAT, "with Celery's delay, Valkey", "pages/s", "least", 1.5)
AGAINST_NOTHING = Row("page-plain", WHAT, "without tracking", "pages/s", must=False)
AGAINST_INSERT = Row("page-insert", WHAT, "with a bare cursor INSERT", "pages/s", must=False)
DELIVERED = Row(
    "page-delivered", f"{WHAT}, and a worker that delivers meanwhile", "with Segment", "pages/s", must=False
)


@measures(AGAINST_SEGMENT, AGAINST_CELERY, AGAINST_INSERT, AGAINST_NOTHING, DELIVERED)
def pages(run: Run) -> Iterator[Figures]:
    seconds = run.size(40, 10) / 10
    url = run.places.receiver(SEGMENT)
    contestants = {
        "ours": Contestant(page, "host", run.places.database("sqlite"), seconds, {}),
        "segment": Contestant(page, "segment", run.places.database("sqlite"), seconds, {"BENCHMARKS_RECEIVER": url}),
        "celery": Contestant(
            page, "celery", run.places.database("sqlite"), seconds, {"BENCHMARKS_BROKER": run.places.valkey}
        ),
        "insert": Contestant(page, "insert", run.places.database("sqlite"), seconds, {}),
        "plain": Contestant(page, "plain", run.places.database("sqlite"), seconds, {}),
    }
    if DELIVERED.name in run.wanted:
        contestants["delivered"] = Contestant(page, "host", run.places.database("sqlite"), seconds, {}, True)
    results = play(contestants, rounds=run.size(10, 3))
    rates = {name: [turn["rate"] for turn in turns] for name, turns in results.items()}
    slowest = {name: f"{max(turn['slowest'] for turn in turns):.1f}" for name, turns in results.items()}
    note = "99 of 100 pages took at most, in ms: " + ", ".join(f"{name} {most}" for name, most in slowest.items())
    pages = sum(turn["pages"] for turn in results["segment"])
    note += f"; {sum(turn['arrived'] for turn in results['segment']) / pages:.1%} of Segment's events arrived"
    yield Figures(AGAINST_SEGMENT.name, rates["ours"], rates["segment"], note)
    yield Figures(AGAINST_CELERY.name, rates["ours"], rates["celery"])
    yield Figures(AGAINST_INSERT.name, rates["ours"], rates["insert"])
    yield Figures(AGAINST_NOTHING.name, rates["ours"], rates["plain"])
    if DELIVERED.name in run.wanted:
        yield Figures(DELIVERED.name, rates["delivered"], rates["segment"])


def page(
    kind: str, database: dict[str, Any], seconds: float, more: dict[str, str], delivering: bool = False
) -> Iterator[dict[str, float]]:
    """The same site on a server of its own; ``kind`` is the page that the visitors look at.

    A turn ends when what its pages have tracked has come to rest, so that the next
    contestant has the machine. Segment's client drops what its queue does not hold.
    """
    plugins = four() if kind == "host" else {}  # without any, the tables are there all the same
    if delivering:  # lanes that do nothing: what a provider's lane costs is another row
        plugins = {name: options if name in FILTERS else {"PLUGIN": "nothing"} for name, options in plugins.items()}
    with ExitStack() as ending:
        boot({"default": database}, plugins)
        env = environment({"default": database}, plugins, **more)
        if delivering:
            ending.enter_context(places.worker(env))
        port = free_port()
        gunicorn = ["gunicorn", "benchmarks.shop.wsgi", "--bind", f"127.0.0.1:{port}", "--log-level", "warning"]
        gunicorn += ["--workers", str(PROCESSES), "--worker-class", "gthread", "--threads", str(THREADS)]
        gunicorn += ["--keep-alive", "600", "--no-control-socket"]
        ending.enter_context(places.process(sys.executable, "-m", *gunicorn, env=env, wait_for=port))
        visitors = Visitors(
            port, f"/{kind}/17/", sample.CONTEXT["userAgent"], connections=CONNECTIONS, processes=PROCESSES
        )
        ending.callback(visitors.close)
        tracked = _tracked(kind, more, delivering)
        found = _at_rest(tracked)
        while True:
            before, visit = found, visitors.visit(seconds)
            found = before if kind == "plain" else _at_rest(tracked, before + visit.pages)
            if kind in ("host", "insert", "celery"):
                assert found - before == visit.pages, f"{found - before} events of {visit.pages} pages"
            yield {**visit._asdict(), "arrived": found - before}


def _tracked(kind: str, more: dict[str, str], delivering: bool) -> Callable[[], int]:
    """What says how many events have arrived so far."""
    if kind == "segment":
        return lambda: count(more["BENCHMARKS_RECEIVER"])
    if kind == "celery":
        from redis import Redis

        queue = Redis.from_url(more["BENCHMARKS_BROKER"])
        return lambda: queue.llen("celery")
    if kind == "plain":
        return lambda: 0
    from pluginhost.delivery import accounts
    from pluginhost.models import Envelope

    if not delivering:
        return Envelope.objects.count
    lanes = [name for name in four() if name not in FILTERS]
    return lambda: min(accounts.read("default").get(lane, {}).get("delivered", 0) for lane in lanes)


def _at_rest(tracked: Callable[[], int], expected: int | None = None) -> int:
    """How many there are when it is as many as expected, or when no more come."""
    found, since = tracked(), time.monotonic()
    while found != expected and time.monotonic() - since < CALM:
        time.sleep(0.05)
        if (now := tracked()) != found:
            found, since = now, time.monotonic()
    return found
