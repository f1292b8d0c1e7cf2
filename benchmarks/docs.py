"""Puts the figures of a run into the page of the documentation: into its marked blocks, and nowhere else. Pure but for
``main``.

A block of the page lies between ``<!-- figures: NAME -->`` and ``<!-- end of figures -->``.
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import number
from benchmarks.plugins import POSTED
from benchmarks.rows import backlog, celery, losses, providers
from benchmarks.rows.postgres import IN_A_BATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results.json"
PAGE = ROOT / "docs" / "reference" / "performance.md"

BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)

#: Events a second that the page asks workers for.
RATES = (10, 100, 1_000, 5_000)
#: How busy a worker may be: what is left is for bursts, and for a machine that is slower than this one.
BUSY = 0.7
NOT_MEASURED = "not measured"
LANES = len(backlog.LANES)
BULK = f"a provider that takes {POSTED} events a POST, from the call"
FAR = f"{providers.FAR * 1e3:.0f} ms away"


class Results:
    """What a run wrote as JSON."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self.machine: dict[str, Any] = found["machine"]
        self.servers: dict[str, str] = found["servers"]
        self.short: bool = found["short"]
        self.rows: dict[str, dict[str, Any]] = {row["name"]: row for row in found["rows"]}

    def median(self, name: str, whose: str = "ours") -> float | None:
        """Of the row's contestant, or of their ratio. None if that was not measured."""
        spread = self.rows.get(name, {}).get("figures", {}).get(whose)
        return spread and float(spread["median"])


def render(page: str, found: Mapping[str, Any]) -> str:
    """The page with these figures. Raises ``KeyError`` for a block that nobody knows."""
    results = Results(found)
    return BLOCK.sub(lambda block: f"{block[1]}\n{BLOCKS[block[2]](results)}\n\n{block[3]}", page)


def _measured(results: Results) -> str:
    machine = results.machine
    versions = [f"Python {machine['python']}", f"Django {machine['packages']['Django']}"]
    versions += [f"{name} {version}" for name, version in sorted(results.servers.items()) if name != "MongoDB"]
    mongodb = results.servers.get("MongoDB", NOT_MEASURED)
    said = (
        f"Measured on {machine['when'][:10]}, on a machine with {machine['cores']} cores whose load was "
        f"{machine['load'][0]:g} before: {', '.join(versions)}. MongoDB: {mongodb}."
    )
    return f"{said} **This was a short run: the figures are rough.**" if results.short else said


def _request(results: Results) -> str:
    def cost(name: str, whose: str = "ours") -> str:
        return _with_unit(results.median(name, whose), "µs")

    with_event, without = results.median("postgres"), results.median("postgres-plain", "peer")
    batch = results.median("postgres-batch")
    added = None if with_event is None or without is None else with_event - without
    each = None if batch is None or without is None else (batch - without) / IN_A_BATCH
    return _table(
        ("what is tracked, and where it goes", "pluginhost", "beside it", ""),
        [
            ("one event, in the view's transaction, SQLite", cost("track"), cost("track", "peer"), "Segment"),
            (f"one of {IN_A_BATCH} in `host.batch`, SQLite", cost("batch"), cost("batch", "peer"), "Segment"),
            ("one event, what it adds to a transaction on PostgreSQL", _with_unit(added, "µs"), "", ""),
            (f"one of {IN_A_BATCH} in `host.batch`, the same", _with_unit(each, "µs"), "", ""),
            ("the whole of that transaction", cost("postgres"), cost("postgres", "peer"), "a bare INSERT"),
            (f"the same with {IN_A_BATCH} events", cost("postgres-batch"), cost("postgres-batch", "peer"), "the same"),
            ("the same without an event", cost("postgres-plain", "peer"), "", ""),
            (
                "one event, `CONN_MAX_AGE` 0, SQLite",
                cost("connection-sqlite"),
                cost("connection-sqlite", "peer"),
                "the connection kept",
            ),
            (
                "one event, `CONN_MAX_AGE` 0, PostgreSQL",
                cost("connection-postgres"),
                cost("connection-postgres", "peer"),
                "the connection kept",
            ),
            (
                "one event, transport `celery`, RabbitMQ",
                cost("celery-rabbitmq"),
                cost("celery-rabbitmq", "peer"),
                "Celery's `delay`, confirmed",
            ),
            (
                "one event, transport `celery`, Valkey",
                cost("celery-valkey"),
                cost("celery-valkey", "peer"),
                "Celery's `delay`",
            ),
            ("robots and consent, which is a part of each event", cost("filters"), "", ""),
        ],
    )


def _losses(results: Results) -> str:
    def share(name: str, whose: str) -> str:
        arrived = results.median(name, whose)
        return NOT_MEASURED if arrived is None else f"{round(arrived, 1):g} %"

    return _table(
        ("what arrives", "pluginhost", "Segment"),
        [
            (what, share(name, "ours"), share(name, "peer"))
            for what, name in (
                (f"of {losses.BURST:,} events without a pause", "burst"),
                (f"of {losses.WAITING} events, and then `kill -9`", "kill"),
            )
        ],
    )


def _pages(results: Results) -> str:
    def rate(name: str, whose: str = "ours") -> str:
        return _with_unit(results.median(name, whose), "a second")

    return _table(
        ("the page", "pages"),
        [
            ("without tracking", rate("page-plain", "peer")),
            ("with a bare INSERT, SQLite", rate("page-insert", "peer")),
            ("with the middleware and one `host.track`, SQLite", rate("page-segment")),
            ("the same, and a worker on this machine delivers meanwhile", rate("page-delivered")),
            ("with Segment, which delivers meanwhile", rate("page-segment", "peer")),
            ("with Celery's `delay` on Valkey", rate("page-celery", "peer")),
        ],
    )


def _capacities(results: Results) -> list[tuple[str, float | None, str]]:
    """What one worker process delivers in a lane, events a second, and what it is compared with."""

    def peer(name: str) -> str:
        found = results.rows.get(name, {})
        rate = results.median(name, "peer")
        return NOT_MEASURED if rate is None else f"{number(rate)} ({found['peer']})"

    return [
        (lane, results.median(name), peer(name))
        for lane, name in (
            ("timeseries, PostgreSQL", "timeseries-postgres"),
            ("timeseries, SQLite", "timeseries-sqlite"),
            ("mongo", "mongo"),
            ("piwik", "matomo"),
            (f"kissmetrics, `CONCURRENCY` {providers.CONCURRENCY}, the provider {FAR}", "kissmetrics"),
            (BULK, "flow"),
        )
    ]


def _worker(results: Results) -> str:
    rows = [(lane, _rate(rate), beside) for lane, rate, beside in _capacities(results)]
    for vendor, name in (("PostgreSQL", "backlog-postgres"), ("SQLite", "backlog-sqlite")):
        rows.append((f"{LANES} lanes that do nothing, {vendor}", _rate(_of_all_lanes(results, name)), ""))
    tasks = results.median("celery-workers", "peer")
    beside = NOT_MEASURED if tasks is None else f"{number(tasks)} (Celery, a task an event that does nothing)"
    rows += [
        (
            f"all four plugins, {celery.PROCESSES} processes of Celery's workers",
            _rate(results.median("celery-workers")),
            beside,
        ),
        (f"{LANES} lanes that do nothing, the same", _rate(results.median("celery-workers-lanes")), beside),
    ]
    return _table(("lane", "events a second", "beside it, events a second"), rows)


def _of_all_lanes(results: Results, name: str) -> float | None:
    """Events a second of a worker, from what it needs for an event and lane, in microseconds."""
    micros = results.median(name, "peer")
    return None if micros is None else 1e6 / micros / LANES


def _workers(results: Results) -> str:
    lanes = [(lane, capacity) for lane, capacity, _ in _capacities(results) if lane != BULK]
    lanes.append((f"{LANES} lanes that do nothing, PostgreSQL", _of_all_lanes(results, "backlog-postgres")))
    rows = [(lane, *(_needed(lane, rate, capacity) for rate in RATES)) for lane, capacity in lanes]
    caption = f"Worker processes for one lane, each busy for {BUSY:.0%} of its time at most:"
    return f"{caption}\n\n{_table(('lane', *(f'{rate:,} events a second' for rate in RATES)), rows)}"


def _needed(lane: str, rate: float, capacity: float | None) -> str:
    if capacity is None:
        return NOT_MEASURED
    needed = workers(rate, capacity)
    # A second worker would wait for the first one's lock.
    return "too much" if needed > 1 and lane.endswith("SQLite") else f"{needed:,}"


def workers(rate: float, capacity: float) -> int:
    """How many worker processes a lane needs for so many events a second, if one delivers ``capacity``."""
    return math.ceil(rate / (BUSY * capacity))


def _limits(results: Results) -> str:
    def calls(name: str, whose: str = "peer", events: int = 1) -> str:
        micros = results.median(name, whose)
        return NOT_MEASURED if micros is None else number(events * 1e6 / micros)

    return _table(
        ("what is at its limit", "events a second"),
        [
            ("one process that tracks, each event in its own transaction, SQLite", calls("backlog-sqlite-track")),
            ("the same, PostgreSQL", calls("backlog-postgres-track")),
            (f"{IN_A_BATCH} in `host.batch`, PostgreSQL", calls("postgres-batch", "ours", IN_A_BATCH)),
            (
                f"one worker with {LANES} lanes, before any plugin does anything, SQLite",
                _rate(_of_all_lanes(results, "backlog-sqlite")),
            ),
            ("the same, PostgreSQL", _rate(_of_all_lanes(results, "backlog-postgres"))),
            ("from call to provider on one machine, SQLite, one worker", _rate(results.median("flow"))),
            (f"a provider {FAR}, one call after the other", _rate(results.median("kissmetrics", "peer"))),
            (f"the same lane with `CONCURRENCY` {providers.CONCURRENCY}", _rate(results.median("kissmetrics"))),
        ],
    )


def _waiting(results: Results) -> str:
    def times(name: str) -> str:
        ratio = results.median(name, "ratio")
        return NOT_MEASURED if ratio is None else f"{number(ratio)} times"

    waiting = "50,000" if results.short else "a million"
    lived = "30,000" if results.short else "a million"
    return _table(
        ("what", "beside it", ""),
        [
            (f"`host.track`, {waiting} events waiting, PostgreSQL", times("backlog-postgres-track"), "none waiting"),
            ("the same, SQLite", times("backlog-sqlite-track"), "none waiting"),
            (f"one event in a worker, {waiting} waiting, PostgreSQL", times("backlog-postgres"), "none waiting"),
            ("the same, SQLite", times("backlog-sqlite"), "none waiting"),
            (f"memory of a worker after {lived} events", times("memory"), results.rows["memory"]["peer"]),
        ],
    )


def _targets(results: Results) -> str:
    verdicts = [row["verdict"] for row in results.rows.values() if row["wanted"]]
    missed, reached = verdicts.count("missed"), verdicts.count("reached")
    skipped = len(verdicts) - missed - reached
    said = f"{reached} of {len(verdicts)} targets are reached, {missed} are missed"
    said += f", {skipped} were not measured." if skipped else "."
    rows = [
        (
            f"`{row['name']}`",
            row["what"],
            row["peer"],
            _spread(row["figures"]["ratio"]),
            row["wanted"] + ("" if row["must"] else ", to watch"),
            {"missed": "**missed**"}.get(row["verdict"], row["verdict"]) or NOT_MEASURED,
        )
        for row in results.rows.values()
        if row["wanted"]
    ]
    return f"{said}\n\n{_table(('row', 'pluginhost', 'beside', 'ratio', 'wanted', ''), rows)}"


def _spread(spread: Mapping[str, float] | None) -> str:
    if not spread:
        return ""
    if spread["low"] == spread["high"]:
        return number(spread["median"])
    return f"{number(spread['median'])} ({number(spread['low'])} to {number(spread['high'])})"


def _with_unit(value: float | None, unit: str) -> str:
    return NOT_MEASURED if value is None else f"{number(value)} {unit}"


def _rate(value: float | None) -> str:
    return NOT_MEASURED if value is None else number(value)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


BLOCKS: dict[str, Callable[[Results], str]] = {
    "measured": _measured,
    "request": _request,
    "losses": _losses,
    "pages": _pages,
    "worker": _worker,
    "workers": _workers,
    "limits": _limits,
    "waiting": _waiting,
    "targets": _targets,
}


def main(path: Path, known: Iterable[str]) -> int:
    """Keep the results of this file as those of the page, and write the page. Returns an exit status."""
    found = json.loads(path.read_text())
    if missing := set(known) - {row["name"] for row in found["rows"]}:
        print(f"{path.name} is not of all rows: {', '.join(sorted(missing))}", file=sys.stderr)
        return 2
    if path.resolve() != RESULTS:
        RESULTS.write_text(path.read_text())
    PAGE.write_text(render(PAGE.read_text(), found))
    print(f"The figures of {found['machine']['when']} are in {PAGE.relative_to(ROOT)}.")
    return 0
