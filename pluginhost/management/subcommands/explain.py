"""``manage.py pluginhost explain MESSAGE_ID``: what became of one event."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from pluginhost.api import host
from pluginhost.management.lanes import add_database, add_json, ago, database, printable, shown, write_json
from pluginhost.operations import explaining, pausing

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.core.management.base import BaseCommand

    from pluginhost.operations.explaining import Finding, Life

HELP = "Tells the life of one event: where it waits or why it is dead, and what the receivers have of it."

SILENT = (
    "nothing in the outbox. If the event was for this lane, it has been delivered, skipped or discarded;"
    " the plugin can't say which"
)
UNKNOWN = (
    "Nothing is known of it. Perhaps every lane is done with it, and no plugin can say so. Perhaps it was never"
    " accepted: its transaction was rolled back, a filter refused it, or another database has it (--database)."
)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("message_id", metavar="MESSAGE_ID", help="As track() returns it, or a log names it.")
    add_json(parser)
    add_database(parser)


def handle(command: BaseCommand, **options: Any) -> None:
    using = database(options)
    life = explaining.explain(options["message_id"], using, host.registry.runners)
    if options["json"]:
        write_json(command, {**asdict(life), "found": life.found})
    else:
        _print(command, life, using)
    if not life.found:
        raise CommandError(f"event {life.message_id} was not found.")


def _print(command: BaseCommand, life: Life, using: str) -> None:
    write = command.stdout.write
    name = next((f" {finding.name!r}" for finding in life.findings if finding.name), "")
    made = f", made {shown(life.made)}" if life.made else ""
    write(f"event {life.message_id}{name}{made}")
    paused = pausing.paused(using)
    for finding in life.findings:
        write(f"  {finding.lane}: {_in_words(finding, is_paused=finding.lane in paused)}")
        if finding.lane not in host.registry.runners:
            write(f"  {finding.lane}: not enabled, so nothing is delivered there")
    met = {finding.lane for finding in life.findings}
    for alias in host.registry.runners:
        if answer := life.answers.get(alias):
            write(f"  {alias}: {printable(answer)}")
        elif alias in life.errors:
            write(f"  {alias}: could not be asked: {printable(life.errors[alias])}")
        elif alias not in met and life.found:
            write(f"  {alias}: {SILENT}")
    if life.unreadable:
        write(f"  {life.unreadable} damaged payloads have this id in them: see pluginhost dead --payload")
    if not life.found:
        write(UNKNOWN)


def _in_words(finding: Finding, *, is_paused: bool) -> str:
    because = f": {printable(finding.reason)}" if finding.reason else ""
    accepted = f"accepted {shown(finding.accepted)}"
    if finding.state == explaining.NOT_TAKEN:
        return f"waits for a worker to take it, {accepted}"
    if finding.state == explaining.WAITING:
        due = "the lane is paused" if is_paused else f"due {ago(finding.due_at)}"
        return f"waits, {accepted}, {due}, attempts so far {finding.attempts}{because}"
    if finding.state == explaining.IN_HAND:
        return f"a worker holds it right now, attempt {finding.attempts}, {accepted}"
    if finding.state == explaining.FINISHED:
        return f"finished: delivered, skipped or discarded, {accepted}"
    return f"dead, {accepted}, attempts {finding.attempts}{because}"
