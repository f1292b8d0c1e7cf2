"""``manage.py pluginhost worker``: the process that empties the outbox."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from pluginhost import metrics
from pluginhost.api import host
from pluginhost.management.lanes import chosen_database, database
from pluginhost.options import did_you_mean, listing
from pluginhost.signals import flush
from pluginhost.workers.health import Heartbeat
from pluginhost.workers.lane_thread import say_last
from pluginhost.workers.worker import DrainWatch, Worker, be_a_worker, drain

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Iterable, Iterator

    from django.core.management.base import BaseCommand

    from pluginhost.delivery.runner import Runner

HELP = "Delivers what waits in the outbox, until it is told to stop (SIGTERM, Ctrl-C)."

logger = logging.getLogger("pluginhost.worker")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--lane", action="append", dest="lanes", metavar="ALIAS", help="Only this lane; repeatable.")
    parser.add_argument("--drain", action="store_true", help="End when nothing is due any more.")
    parser.add_argument("--database", help="The database of the outbox. Default: the router's.")
    parser.add_argument("--healthcheck", metavar="FILE", help="Touch this file every few seconds while all is well.")


def handle(command: BaseCommand, **options: Any) -> None:
    runners = _chosen(options["lanes"])
    if options["drain"]:
        if options["healthcheck"]:
            raise CommandError("--healthcheck is for a worker that runs on; --drain ends by itself.")
        _drain(command, runners, database(options))
        return
    using = chosen_database(options)  # its tables are waited for
    heartbeat = _heartbeat(options["healthcheck"], runners)
    metrics.watch_backlogs(using)
    worker = Worker(runners, using, heartbeat=heartbeat)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.end())
    command.stdout.write(f"worker {os.getpid()} on database {using!r}, lanes: {listing(runners)}")
    command.stdout.flush()
    be_a_worker()
    status = worker.run()
    command.stdout.write(f"worker {os.getpid()} has stopped")
    if status:
        # A call that hangs holds its thread: only the end of the process ends it.
        sys.stdout.flush()
        say_last(logging.shutdown)
        os._exit(status)


def _drain(command: BaseCommand, runners: dict[str, Runner], using: str) -> None:
    watch = DrainWatch(runners.values(), threading.get_ident(), using)
    watch.start()
    try:
        with _told_to_end() as told:
            batches = drain(runners, using, told)
    finally:
        watch.over.set()
    for runner in runners.values():
        runner.close()
    flush()
    why = "told to end" if told() else "nothing is due any more"
    command.stdout.write(f"{why}; {batches} {'batch was' if batches == 1 else 'batches were'} run")


@contextmanager
def _told_to_end() -> Iterator[Callable[[], bool]]:
    """Whether the process was told to end meanwhile. In another thread than the main one it can't be told."""
    told: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, lambda number, _: told.append(number))
    try:
        yield lambda: bool(told)
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _heartbeat(path: str | None, runners: Iterable[str]) -> Heartbeat | None:
    if path is None:
        return None
    heartbeat = Heartbeat(path, runners)
    try:
        heartbeat.begin()
    except OSError as error:
        raise CommandError(f"--healthcheck: {path} can't be written: {error.strerror}") from error
    return heartbeat


def _chosen(lanes: list[str] | None) -> dict[str, Runner]:
    runners = host.registry.runners
    for lane in lanes or ():
        if lane not in runners:
            raise CommandError(
                f"there is no lane {lane!r}. {did_you_mean(lane, runners)}The lanes are: {listing(runners)}."
            )
    if not runners:
        raise CommandError("no enabled plugin delivers events: see PLUGINHOST['PLUGINS'].")
    return {lane: runners[lane] for lane in lanes} if lanes else dict(runners)
