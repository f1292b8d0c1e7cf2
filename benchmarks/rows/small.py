"""The start of a process, and the filters."""

from __future__ import annotations

import subprocess
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks import sample
from benchmarks.boot import FILTERS, ROOT, boot, environment, four
from benchmarks.contest import Contestant, play
from benchmarks.figures import Row
from benchmarks.measuring import Figures, Run, measures

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 5.0

CHECK = Row("check", "manage.py check with the host and four plugins", "without", "ms", "most", 1.15, must=False)
FILTERED = Row("filters", "bots and consent asked, browser seen before", f"{LIMIT:g} µs", "µs", "most", 1, must=False)


@measures(CHECK)
def check(run: Run) -> Iterator[Figures]:
    database, bytecode = run.places.database("sqlite"), str(run.places.folder / "bytecode")
    results = play(
        {
            "ours": Contestant(checked, database, four(), bytecode),
            "peer": Contestant(checked, database, None, bytecode),
        },
        rounds=run.size(20, 6),
    )
    yield Figures(CHECK.name, results["ours"], results["peer"])


def checked(database: dict[str, Any], plugins: dict[str, dict[str, Any]] | None, bytecode: str) -> Iterator[float]:
    """All code is compiled by then, as on a site that was started before, whatever PYTHONDONTWRITEBYTECODE says."""
    env = environment({"default": database}, plugins, PYTHONPYCACHEPREFIX=bytecode)
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    while True:
        begun = perf_counter()
        subprocess.run([sys.executable, "-m", "django", "check"], cwd=ROOT, env=env, check=True, capture_output=True)
        yield (perf_counter() - begun) * 1e3


@measures(FILTERED)
def filters(run: Run) -> Iterator[Figures]:
    results = play(
        {"ours": Contestant(filtered, run.places.database("sqlite"), run.size(5_000, 2_000))}, rounds=run.size(15, 6)
    )
    yield Figures(FILTERED.name, results["ours"], [LIMIT] * len(results["ours"]))


def filtered(database: dict[str, Any], calls: int) -> Iterator[float]:
    boot({"default": database}, FILTERS)
    from pluginhost import host
    from pluginhost.filtering import verdict

    while True:
        requests = sample.requests(calls)
        asked = host.registry.filters
        begun = perf_counter()
        for request in requests:
            verdict(asked, request, None)
        yield (perf_counter() - begun) / calls * 1e6
