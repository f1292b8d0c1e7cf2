"""The table, and the same as JSON."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Spread, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from benchmarks.figures import Result

PACKAGES = ("pluginhost", "Django", "segment-analytics-python", "celery", "gunicorn", "psycopg", "pymongo", "requests")
HEADINGS = ("row", "unit", "pluginhost", "peer", "", "ratio", "wanted", "")


def machine() -> dict[str, Any]:
    """What it was measured on, and how busy that is."""
    return {
        "when": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "packages": {package: version(package) for package in PACKAGES},
    }


def heading(before: dict[str, Any]) -> str:
    """What it was measured on, in a line."""
    packages = ", ".join(f"{name} {number}" for name, number in before["packages"].items())
    load = before["load"][0]
    return (
        f"{before['when']}, Python {before['python']}, {before['cores']} cores, load {load} at the start; {packages}\n"
        "Medians (quartiles); ratios are pluginhost's figure by the peer's.\n"
    )


def table(results: Sequence[Result]) -> str:
    """Rows of text, those that must reach their target first."""
    lines = []
    for must, heading in ((True, "Must"), (False, "To watch")):
        chosen = [result for result in results if result.row.must is must]
        if chosen:
            lines += [heading, *_aligned([HEADINGS, *map(_cells, chosen)]), ""]
            lines += [f"  {result.row.name}: {result.row.what}" for result in chosen] + [""]
    notes = [(result.row.name, note) for result in results for note in (result.note, result.skipped) if note]
    lines += ["Notes", *(f"  {name}: {note}" for name, note in notes)] if notes else []
    return "\n".join(lines)


def _cells(result: Result) -> tuple[str, ...]:
    row = result.row
    if result.skipped:
        return (row.name, row.unit, "", "", row.peer, "skipped", row.wanted, "")
    figures = (_spread(result.ours), _spread(result.peer), row.peer, _spread(result.ratio))
    return (row.name, row.unit, *figures, row.wanted, result.verdict)


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return ""
    if spread.low == spread.high:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.low)} to {number(spread.high)})"


def _aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def write(
    path: Path, results: Iterable[Result], before: dict[str, Any], servers: dict[str, str], *, short: bool
) -> None:
    """Write everything as JSON. Nothing in it tells where, or on whose machine, it was measured."""
    found = {
        "machine": before,
        "servers": servers,
        "load_after": [round(load, 2) for load in os.getloadavg()],
        "short": short,
        "rows": [result.as_json() for result in results],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")
