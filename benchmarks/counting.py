"""Counts the instructions of the hot path with callgrind: the same on a busy machine.

Callgrind writes down its count, and begins anew, whenever the process calls
``getppid``; so the start of Django is not a part of it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from contextlib import nullcontext
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from benchmarks.boot import ROOT, boot, environment
from benchmarks.cases import CASES, IN_TRANSACTION
from benchmarks.places import Places

if TYPE_CHECKING:
    from pathlib import Path

#: Rounds that are counted, after one that is not. They differ by less than a percent.
ROUNDS = 3


def main(names: list[str], path: Path | None, against: Path | None) -> int:
    """Print instructions an event for each case. Returns an exit status."""
    if shutil.which("valgrind") is None:
        print("Instructions can't be counted here: valgrind is not installed.", file=sys.stderr)
        return 1
    before = json.loads(against.read_text()) if against else {}
    found: dict[str, float] = {}
    for name, case in CASES.items():
        if names and not any(fnmatch(name, pattern) for pattern in names):
            continue
        with Places() as places:
            database = {"default": places.database("sqlite")}
            found[name] = _counted(name, database, places.folder) / case.events
        change = f"{found[name] / before[name] - 1:+8.1%}" if name in before else ""
        print(f"{name:10}{found[name]:12,.0f} instructions{change}   {case.what}", flush=True)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def _counted(name: str, databases: dict[str, Any], folder: Path) -> float:
    """Instructions of one round: the median of some."""
    env = environment(databases, CASES[name].plugins())
    env |= {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    python = [sys.executable, "-m", "benchmarks.counting", name]
    # First without valgrind: makes the tables, and shows what is wrong.
    subprocess.run([*python, "0"], cwd=ROOT, env=env, check=True)
    tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder / 'counted'}", "--dump-before=getppid"]
    ended = subprocess.run([*tool, *python, str(ROUNDS + 1)], cwd=ROOT, env=env, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(ended.stdout + ended.stderr)
    # The files alternate: what came before a round, the round. The first round warms up.
    files = sorted(folder.glob("counted.*"), key=lambda file: int(file.suffix[1:]))[3::2]
    assert len(files) == ROUNDS
    return statistics.median(_total(file.read_text()) for file in files)


def _total(text: str) -> int:
    totals = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
    assert totals is not None
    return int(totals[1])


def _run(name: str, rounds: int) -> None:
    """What is counted."""
    case = CASES[name]
    boot(json.loads(os.environ["BENCHMARKS_DATABASES"]), case.plugins())
    from django.db import transaction

    for _ in range(max(rounds, 1)):
        act = case.prepare(case.events)
        with transaction.atomic() if name in IN_TRANSACTION else nullcontext():
            os.getppid()
            act()
            os.getppid()


if __name__ == "__main__":
    _run(sys.argv[1], int(sys.argv[2]))
