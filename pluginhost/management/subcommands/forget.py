"""``manage.py pluginhost forget``: a person is deleted from the outbox and from what the plugins have delivered."""

from __future__ import annotations

from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from pluginhost.api import host
from pluginhost.conf import get_settings
from pluginhost.management.lanes import (
    add_database,
    add_json,
    confirm,
    database,
    events,
    known_lanes,
    printable,
    write_json,
)
from pluginhost.operations import forgetting
from pluginhost.operations.erasing import NEWER, Found
from pluginhost.options import listing
from pluginhost.plugin import Person

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable

    from django.core.management.base import BaseCommand

HELP = "Deletes what is known of a person: in the outbox, and by each plugin where its receiver has it."

#: Other ids that are suggested, at most.
SUGGESTED = 20


@dataclass
class Report:
    """What came of it, as far as it has."""

    person: Person
    dry_run: bool
    found: Found
    still_held: int = 0
    answers: list[forgetting.Answer] = field(default_factory=list)
    not_asked: dict[str, str] = field(default_factory=dict)
    """Alias -> why."""

    def left(self) -> list[str]:
        """What is not done, and what to do about it."""
        left = []
        if not self.dry_run:
            if self.still_held or self.found.in_hand:
                left.append("workers still hold events, which may be the person's: run it again.")
            if not get_settings().ENABLED:
                left.append("PLUGINHOST['ENABLED'] is False, so no plugin was asked: run it again when it is True.")
            if failed := [answer.alias for answer in self.answers if answer.outcome == "failed"]:
                left.append(f"{listing(failed)} failed: run it again, once what they say is mended.")
        if any(one.problem == NEWER for one in self.found.unreadable):
            left.append("payloads of a newer version can't be read here: run it again with that version.")
        if any(one.problem != NEWER for one in self.found.unreadable):
            left.append("damaged payloads name the person: see them with pluginhost dead, delete with discard.")
        return left


def add_arguments(parser: ArgumentParser) -> None:
    for flag, what in (("--user-id", "A user id"), ("--anonymous-id", "An anonymous id")):
        parser.add_argument(
            flag, nargs="+", action="extend", default=[], metavar="ID", help=f"{what} of the person; several are one's."
        )
    parser.add_argument("--dry-run", action="store_true", help="Only say what the outbox has, and who would be asked.")
    parser.add_argument("--noinput", "--no-input", action="store_false", dest="interactive", help="Do not ask.")
    add_json(parser)
    add_database(parser)


def handle(command: BaseCommand, **options: Any) -> None:
    person = Person(user_ids=_ids(options["user_id"]), anonymous_ids=_ids(options["anonymous_id"]))
    if not person.user_ids and not person.anonymous_ids:
        raise CommandError("whom? Give --user-id or --anonymous-id.")
    using = database(options)
    runners = host.registry.runners
    report = Report(person, options["dry_run"], Found(), not_asked=_not_asked(using))
    if options["dry_run"]:
        report.found = forgetting.look(person, using)
    else:
        if options["interactive"]:
            confirm(command, f"Forget {_named(person)}", "nobody was forgotten.")
        done = forgetting.forget(person, using, progress=_progress(command))
        report.found, report.still_held = done.found, done.still_held
        report.answers = list(forgetting.ask(person, runners))
    if options["json"]:
        write_json(command, _as_json(report))
    else:
        _print(command, report)
    if left := report.left():
        raise CommandError("not all is forgotten:\n" + "\n".join(left))


def _ids(given: list[str]) -> tuple[str, ...]:
    """The ids, each once. Raises ``CommandError`` for what can't be one."""
    for id_ in given:
        try:
            id_.encode()
        except UnicodeEncodeError:
            raise CommandError(f"{id_!r} is no text.") from None
        if "\0" in id_:  # no event has such an id, and PostgreSQL takes no such text
            raise CommandError(f"{id_!r} has a NUL character.")
        if not id_.strip():
            raise CommandError("an id is empty.")
    return tuple(dict.fromkeys(given))


def _not_asked(using: str) -> dict[str, str]:
    runners = host.registry.runners
    reasons = {lane: "not enabled" for lane in known_lanes(using) if lane not in runners}
    impersonal = {alias: "has no personal data" for alias in runners if not runners[alias].plugin.personal_data}
    return impersonal | reasons


def _named(person: Person) -> str:
    ids = [*(f"user id {id_!r}" for id_ in person.user_ids), *(f"anonymous id {id_!r}" for id_ in person.anonymous_ids)]
    return f"the person with {' and '.join(ids)}"


def _progress(command: BaseCommand) -> Callable[[str], None]:
    """Writes to stderr what is waited for; the same sentence once in a row."""
    last = ""

    def report(sentence: str) -> None:
        nonlocal last
        if sentence != last:
            last = sentence
            command.stderr.write(sentence, lambda text: text)
            command.stderr.flush()

    return report


def _places(found: Found) -> dict[str, int]:
    return {name: getattr(found, name) for name in ("envelopes", "chunks", "waiting", "dead")}


def _others(found: Found) -> dict[str, list[str]]:
    others: dict[str, list[str]] = {"user_ids": [], "anonymous_ids": []}
    for kind, id_ in sorted(found.others)[:SUGGESTED]:
        others[f"{kind}_ids"].append(id_)
    return others


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "dry_run": report.dry_run,
        "user_ids": report.person.user_ids,
        "anonymous_ids": report.person.anonymous_ids,
        "outbox": _places(report.found),
        "held": report.still_held or report.found.in_hand,
        "unreadable": [one._asdict() for one in report.found.unreadable],
        "plugins": [answer._asdict() for answer in report.answers],
        "not_asked": report.not_asked,
        "others": _others(report.found),
        "left": report.left(),
    }


def _print(command: BaseCommand, report: Report) -> None:
    write = command.stdout.write
    found = report.found
    places = ", ".join(f"{name} {n}" for name, n in _places(found).items())
    write(f"outbox: {'has' if report.dry_run else 'erased'} {events(found.events)} ({places})")
    for one in found.unreadable:
        write(f"outbox: {one.table} {one.id} of {listing(one.lanes)} can't be read: {one.problem}")
    if report.dry_run and (asked := [alias for alias in host.registry.runners if alias not in report.not_asked]):
        write(f"would ask: {listing(asked)}")
    for alias, outcome, sentence in report.answers:
        how = "" if outcome == "done" else f"{outcome}: "
        write(f"{alias}: {how}{printable(sentence)}")
    for alias, reason in report.not_asked.items():
        write(f"{alias}: not asked: {reason}")
    if others := sorted(found.others)[:SUGGESTED]:
        write("These events had other ids too. Any that is only this person's, give as well:")
        for kind, id_ in others:
            write(f"  --{kind}-id={printable(quote(id_))}")
