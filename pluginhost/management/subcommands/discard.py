"""``manage.py pluginhost discard``: dead letters, or what waits in a lane, are given up for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from pluginhost.management.lanes import (
    add_database,
    add_filters,
    add_json,
    check_selected,
    confirm,
    database,
    events,
    progress,
    selection,
    told,
    write_json,
)
from pluginhost.operations import letters

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.core.management.base import BaseCommand

HELP = "Deletes dead letters, or with --waiting the backlog of a lane, and counts them as discarded."

REASON = "discarded by a command"


def add_arguments(parser: ArgumentParser) -> None:
    add_filters(parser)
    parser.add_argument("--all", action="store_true", help="All dead letters; needed if there is no filter.")
    parser.add_argument("--waiting", action="store_true", help="What waits, instead of dead letters. Needs --lane.")
    parser.add_argument("--dry-run", action="store_true", help="Only say how many there are.")
    parser.add_argument("--noinput", "--no-input", action="store_false", dest="interactive", help="Do not ask.")
    add_json(parser)
    add_database(parser)


def handle(command: BaseCommand, **options: Any) -> None:
    if options["waiting"] and not options["lanes"]:
        raise CommandError("--waiting discards what was never tried: say of which lane, with --lane.")
    check_selected(options, "discard")
    using = database(options)
    chosen = selection(options, using, state="waiting" if options["waiting"] else "dead")
    if chosen.state == "dead":
        chosen = letters.up_to_now(chosen, using)
    counts = letters.count(chosen, using)
    total = sum(counts.values())
    if options["dry_run"]:
        if options["json"]:
            write_json(command, {"dry_run": True, "selected": total, "lanes": counts})
        else:
            command.stdout.write(f"would discard {told(counts)}")
        return
    if total and options["interactive"]:
        how = "are dead" if chosen.state == "dead" else "wait"
        confirm(command, f"Discard {told(counts)} that {how}", "nothing was discarded.")
    # If there were none, nobody was asked about those that there are now.
    done = letters.discard(chosen, using, reason=REASON, progress=progress(command, "discarded", total)) if total else 0
    if options["json"]:
        write_json(command, {"dry_run": False, "selected": total, "lanes": counts, "discarded": done})
    else:
        command.stdout.write(f"discarded {events(done)}")
