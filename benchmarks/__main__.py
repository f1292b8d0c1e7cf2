"""``python -m benchmarks``: measures, and prints the table. See README.md."""

from __future__ import annotations

import argparse
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

from benchmarks import counting, docs, profiling, report, rows
from benchmarks.contest import Failed
from benchmarks.figures import Result, Row
from benchmarks.measuring import Measurement, Run, Skipped
from benchmarks.places import Places


def main() -> int:
    options = _options()
    if options.count:
        return counting.main(options.names, options.json, options.against)
    if options.profile:
        return profiling.main(options.names, short=options.short)
    measurements = rows.load()
    known = [row for measurement in measurements for row in measurement.rows]
    if options.docs:
        return docs.main(options.docs, (row.name for row in known))
    if options.list:
        for row in known:
            print(f"{row.name:24}{row.what}; against {row.peer}; {row.wanted or 'to watch'}")
        return 0
    wanted = frozenset(row.name for row in known if _chosen(row, options.names))
    if not wanted:
        print(f"There is no row {' '.join(options.names)}. See: --list", file=sys.stderr)
        return 2
    return _measure(measurements, wanted, short=options.short, path=options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="What the host costs, beside its peers.")
    parser.add_argument("names", nargs="*", metavar="ROW", help="Names of rows, or of cases; * is for anything.")
    parser.add_argument("--list", action="store_true", help="Name the rows, and measure nothing.")
    parser.add_argument("--short", action="store_true", help="Some four minutes: smaller numbers, wider spreads.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write the results there too.")
    parser.add_argument(
        "--docs",
        type=Path,
        nargs="?",
        const=docs.RESULTS,
        metavar="FILE",
        help="Write the page of the documentation, from this JSON of all rows or from the last one.",
    )
    parser.add_argument("--count", action="store_true", help="Count instructions instead (needs valgrind).")
    parser.add_argument("--against", type=Path, metavar="FILE", help="With --count: compare with this earlier JSON.")
    parser.add_argument("--profile", action="store_true", help="Say where the time of a case goes instead.")
    return parser.parse_args()


def _chosen(row: Row, patterns: list[str]) -> bool:
    return not patterns or any(fnmatch(row.name, pattern) for pattern in patterns)


def _measure(measurements: list[Measurement], wanted: frozenset[str], *, short: bool, path: Path | None) -> int:
    before = report.machine()
    results: list[Result] = []
    failed = False
    with Places() as places:
        run = Run(places, short, wanted)
        for measurement in measurements:
            chosen = {row.name: row for row in measurement.rows if row.name in wanted}
            if not chosen:
                continue
            begun = time.perf_counter()
            print(f"{', '.join(chosen)} ...", end=" ", flush=True, file=sys.stderr)
            try:
                figures = list(measurement.measure(run))
            except (Skipped, Failed) as reason:
                failed |= isinstance(reason, Failed)
                results += [Result(row, skipped=str(reason)) for row in chosen.values()]
            else:
                results += [
                    Result.of(chosen[each.name], each.ours, each.peer, each.note)
                    for each in figures
                    if each.name in chosen
                ]
            print(f"{time.perf_counter() - begun:.0f} s", file=sys.stderr)
    print(report.heading(before))
    print(report.table(results))
    if path is not None:
        report.write(path, results, before, places.versions, short=short)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
