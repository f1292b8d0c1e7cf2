"""Says where the time of one event goes, in a case of ``benchmarks.cases``: ``track`` unless another is named.

Twice: by samples of the stack, which disturb nothing but know only where time
passes, and by cProfile, which counts calls but makes small functions look slow.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import signal
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.boot import ROOT, boot
from benchmarks.cases import CASES, IN_TRANSACTION
from benchmarks.places import Places

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType

#: Seconds between two samples. Not a divisor of what an event takes.
INTERVAL = 0.00037
SHOWN = 30


def main(names: list[str], *, short: bool) -> int:
    """Print both profiles of each case. Returns an exit status."""
    if unknown := set(names) - CASES.keys():
        print(f"There is no case {', '.join(sorted(unknown))}. The cases are: {', '.join(CASES)}", file=sys.stderr)
        return 2
    status = 0
    for name in names or ["track"]:
        with Places() as places:
            arguments = [name, json.dumps({"default": places.database("sqlite")}), "40" if short else "200"]
            status |= subprocess.run([sys.executable, "-m", "benchmarks.profiling", *arguments], cwd=ROOT).returncode
    return status


class Sampler:
    """Where the stack is, every so often, below the calls that are sampled."""

    def __init__(self) -> None:
        self.samples = 0
        self.own: Counter[CodeType] = Counter()
        self.cumulative: Counter[CodeType] = Counter()

    def run(self, act: Any) -> float:
        """Call it under samples. Returns its seconds."""
        signal.signal(signal.SIGALRM, self._sample)
        begun = perf_counter()
        signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)
        act()
        signal.setitimer(signal.ITIMER_REAL, 0)
        return perf_counter() - begun

    def _sample(self, _: int, frame: FrameType | None) -> None:
        stack = list(_codes(frame))
        if stack:
            self.samples += 1
            self.own[stack[0]] += 1
            self.cumulative.update(set(stack))


def _codes(frame: FrameType | None) -> Iterator[CodeType]:
    """From the innermost frame out to the call of the host."""
    while frame is not None and frame.f_code.co_filename != __file__:
        yield frame.f_code
        frame = frame.f_back


def _named(code: CodeType) -> str:
    path = Path(code.co_filename)
    parts = path.parts[-2:] if path.parent.name not in ("pluginhost", "benchmarks") else path.parts[-1:]
    return f"{'/'.join(parts)}:{code.co_firstlineno} {code.co_qualname}"


def _print(title: str, found: Counter[CodeType], samples: int, micros: float) -> None:
    print(f"\n{title:>10}      µs   function")
    for code, number in found.most_common(SHOWN):
        print(f"{number / samples:10.1%}{number / samples * micros:8.2f}   {_named(code)}")


def _run(name: str, databases: dict[str, Any], rounds: int) -> None:
    case = CASES[name]
    boot(databases, case.plugins())
    from django.core.management import call_command
    from django.db import transaction

    sampler, profile, undisturbed = Sampler(), cProfile.Profile(), 0.0
    for number in range(rounds + 1):
        acts = [case.prepare(case.events) for _ in range(3)]
        with transaction.atomic() if name in IN_TRANSACTION else nullcontext():
            begun = perf_counter()
            acts[0]()
            undisturbed += perf_counter() - begun if number else 0.0  # the first round warms up
            if number:
                sampler.run(acts[1])
                if number % 5 == 0:
                    profile.runcall(acts[2])
        call_command("flush", verbosity=0, interactive=False)
    events = rounds * case.events
    micros = undisturbed / events * 1e6
    print(f"{name}, {case.what}: {micros:.1f} µs here; {sampler.samples} samples.")
    _print("own", sampler.own, sampler.samples, micros)
    _print("with calls", sampler.cumulative, sampler.samples, micros)
    print(f"\ncProfile, of {rounds // 5 * case.events} events:")
    pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(SHOWN)


if __name__ == "__main__":
    _run(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]))
