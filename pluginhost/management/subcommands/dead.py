"""``manage.py pluginhost dead``: the dead letters, and why they died."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pluginhost.management.lanes import (
    add_database,
    add_filters,
    add_json,
    database,
    events,
    natural,
    printable,
    selection,
    shown,
    told,
    write_json,
)
from pluginhost.operations import letters

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.core.management.base import BaseCommand

    from pluginhost.operations.letters import Letter

HELP = "Lists dead letters, the newest first: events that were given up, each with its reason."


def add_arguments(parser: ArgumentParser) -> None:
    add_filters(parser)
    parser.add_argument(
        "--limit", type=natural, default=100, metavar="N", help="At most so many; 0: all. Default: 100."
    )
    parser.add_argument("--payload", action="store_true", help="Print the events themselves, too.")
    add_json(parser)
    add_database(parser)


def handle(command: BaseCommand, **options: Any) -> None:
    using = database(options)
    chosen = selection(options, using)
    counts = letters.count(chosen, using)
    found = letters.select(chosen, using).order_by("-id")
    if options["limit"] > 0:
        found = found[: options["limit"]]
    if options["json"]:
        shown_letters = [_as_dict(letter, options["payload"]) for letter in letters.read(found)]
        write_json(command, {"total": sum(counts.values()), "lanes": counts, "letters": shown_letters})
        return
    n = 0
    for letter in letters.read(found):
        n += letter.n
        _print(command, letter, options["payload"])
    command.stdout.write(told(counts))
    if n < sum(counts.values()):
        command.stdout.write(f"The newest {n} are shown: see --limit.")


def _as_dict(letter: Letter, payload: bool) -> dict[str, Any]:
    fields = letter._asdict()
    fields["died"] = fields.pop("due_at")
    if not payload:
        del fields["payload"]
    return fields


def _print(command: BaseCommand, letter: Letter, payload: bool) -> None:
    name = letter.event_name or events(letter.n)
    command.stdout.write(f"{letter.lane}  {printable(letter.message_id) or '-'}  {printable(name)}")
    command.stdout.write(f"  accepted {shown(letter.created)}, attempts {letter.attempts}: {printable(letter.reason)}")
    if payload:
        text = letter.payload if isinstance(letter.payload, str) else json.dumps(letter.payload, ensure_ascii=False)
        command.stdout.write(f"  {printable(text)}")
