"""Contestants are processes of their own that take turns: while one measures, the others wait.

A contestant is a generator. It sets up before its first ``yield``; each ``yield`` is
one turn's result; it cleans up when it is closed. Each runs in a fresh process, so
that no contestant's threads, caches or garbage are another one's, and all live at the
same time, so that a slow minute of the machine is slow for all.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.boot import INSTALLED, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS_TO_END = 60


class Failed(Exception):
    """A contestant could not do its turn."""


class Contestant:
    """One process, and the pipe on which it is told to go."""

    def __init__(self, function: Callable[..., Iterator[Any]], *arguments: Any) -> None:
        self.name = f"{function.__module__}:{function.__qualname__}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.contest", self.name, json.dumps(arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(INSTALLED)])},
        )

    def turn(self) -> Any:
        """Let it measure once. Raises ``Failed``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            raise Failed(f"{self.name} ended with status {self._process.wait()}; see above") from None

    def close(self) -> None:
        """Let it clean up, and end."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def play(contestants: dict[str, Contestant], rounds: int, *, warm_up: int = 1) -> dict[str, list[Any]]:
    """The results of each by name, round by round: A B, B A, A B. The first rounds are thrown away."""
    results: dict[str, list[Any]] = {name: [] for name in contestants}
    try:
        for number in range(warm_up + rounds):
            names = list(contestants)
            for name in names if number % 2 == 0 else reversed(names):
                result = contestants[name].turn()
                if number >= warm_up:
                    results[name].append(result)
    finally:
        for contestant in contestants.values():
            contestant.close()
    return results


def _main(name: str, arguments: list[Any]) -> None:
    """What runs in the process: a turn for each line that comes, until there are no more."""
    results = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what anybody else prints is no result
    module, _, function = name.partition(":")
    turns: Iterator[Any] = getattr(import_module(module), function)(*arguments)
    try:
        for _ in sys.stdin:
            print(json.dumps(next(turns)), file=results)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        turns.close()  # type: ignore[attr-defined]


if __name__ == "__main__":
    _main(sys.argv[1], json.loads(sys.argv[2]))
