"""``manage.py pluginhost replay``: dead letters are sent again, with their message ids."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any

from pluginhost.management.lanes import (
    add_database,
    add_filters,
    add_json,
    check_selected,
    database,
    events,
    not_enabled,
    progress,
    selection,
    told,
    write_json,
)
from pluginhost.operations import letters, pausing

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.core.management.base import BaseCommand

HELP = "Sends dead letters again: they wait in their lanes, as if they had never been tried."


def add_arguments(parser: ArgumentParser) -> None:
    add_filters(parser)
    parser.add_argument("--all", action="store_true", help="All dead letters; needed if there is no filter.")
    parser.add_argument("--rate", type=_rate, metavar="N", help="So many events a second come due in each lane.")
    parser.add_argument("--dry-run", action="store_true", help="Only say how many there are.")
    add_json(parser)
    add_database(parser)


def handle(command: BaseCommand, **options: Any) -> None:
    check_selected(options, "replay")
    using = database(options)
    chosen = selection(options, using)
    counts = letters.count(chosen, using)
    if options["dry_run"]:
        if options["json"]:
            write_json(command, {"dry_run": True, "selected": sum(counts.values()), "lanes": counts})
        else:
            command.stdout.write(f"would replay {told(counts)}")
        return
    report = progress(command, "replayed", sum(counts.values()))
    done = letters.replay_or_forget(chosen, using, rate=options["rate"], progress=report)
    if options["json"]:
        write_json(
            command,
            {
                "dry_run": False,
                "selected": sum(counts.values()),
                "lanes": counts,
                "replayed": done.replayed,
                "forgotten": done.forgotten,
            },
        )
        return
    command.stdout.write(f"replayed {events(done.replayed)}; they wait in their lanes")
    if done.forgotten:
        command.stdout.write(f"discarded {events(done.forgotten)} of people who have been forgotten")
    for lane in not_enabled(counts):
        command.stdout.write(f"{lane} is not enabled: its events wait until it is")
    for lane in pausing.paused(using).keys() & counts.keys():
        command.stdout.write(f"{lane} is paused: its events wait until it is resumed")


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not letters.SLOWEST <= rate < float("inf"):
        raise ArgumentTypeError(f"{text!r} is no number of events a second from {letters.SLOWEST} on.")
    return rate
