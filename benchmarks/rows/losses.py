"""What is lost: in a burst, and with a process that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from benchmarks import places, sample
from benchmarks.boot import ROOT, boot, environment
from benchmarks.contest import Contestant, play
from benchmarks.figures import Row
from benchmarks.measuring import Figures, Run, measures
from benchmarks.receiver import BULK, SEGMENT, count
from benchmarks.rows.flow import bulk

if TYPE_CHECKING:
    from collections.abc import Iterator

BURST = 60_000
WAITING = 50

BURST_ROW = Row("burst", f"{BURST:,} events in a burst, SQLite", "Segment", "% arrived", must=False)
KILL_ROW = Row("kill", f"{WAITING} events, then kill -9, SQLite", "Segment", "% arrived", must=False)


@measures(BURST_ROW)
def burst(run: Run) -> Iterator[Figures]:
    return losses(run, BURST_ROW, BURST, run.size(3, 1), killed=False)


@measures(KILL_ROW)
def kill(run: Run) -> Iterator[Figures]:
    return losses(run, KILL_ROW, WAITING, run.size(5, 2), killed=True)


def losses(run: Run, row: Row, events: int, rounds: int, *, killed: bool) -> Iterator[Figures]:
    results = play(
        {
            "ours": Contestant(with_host, run.places.database("sqlite"), events, killed),
            "peer": Contestant(with_segment, events, killed),
        },
        rounds=rounds,
        warm_up=0,
    )
    yield Figures(row.name, results["ours"], results["peer"])


def with_host(database: dict[str, Any], events: int, killed: bool) -> Iterator[float]:
    with places.receiver(BULK) as url:
        boot({"default": database}, bulk(url))
        env = environment({"default": database}, bulk(url))
        while True:
            before = count(url)
            _apart("track_with_host", events, killed, env=env)
            with places.worker(env, "--drain") as worker:
                worker.wait()
            yield (count(url) - before) / events * 100


def with_segment(events: int, killed: bool) -> Iterator[float]:
    with places.receiver(SEGMENT) as url:
        env = {**os.environ, "BENCHMARKS_RECEIVER": url}
        while True:
            before = count(url)
            _apart("track_with_segment", events, killed, env=env)
            yield (count(url) - before) / events * 100


def _apart(function: str, events: int, killed: bool, *, env: dict[str, str]) -> None:
    """Call it in a process of its own."""
    code = f"from {__name__} import {function} as act; act({events}, {killed})"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, stderr=subprocess.PIPE)
    expected = -signal.SIGKILL if killed else 0
    if ended.returncode != expected:
        raise RuntimeError(f"{function} ended with {ended.returncode}: {ended.stderr.decode()[-2000:]}")


def track_with_host(events: int, killed: bool) -> None:
    boot(json.loads(os.environ["BENCHMARKS_DATABASES"]), json.loads(os.environ["BENCHMARKS_PLUGINHOST"])["PLUGINS"])
    from pluginhost import host

    for _ in range(events):
        host.track(None, sample.NAME, sample.PROPERTIES, user_id=sample.USER_ID)
    if killed:
        os.kill(os.getpid(), signal.SIGKILL)


def track_with_segment(events: int, killed: bool) -> None:
    from segment.analytics import Client

    client = Client("key", host=os.environ["BENCHMARKS_RECEIVER"])
    for _ in range(events):
        client.track(sample.USER_ID, sample.NAME, sample.PROPERTIES)
    if killed:
        os.kill(os.getpid(), signal.SIGKILL)
    client.shutdown()
