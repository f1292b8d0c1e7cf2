"""What the subcommands that work on lanes share: which lanes there are, which letters are meant, how it is told."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
from argparse import ArgumentTypeError
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management.base import CommandError
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from pluginhost.api import host
from pluginhost.operations.letters import Selection
from pluginhost.options import did_you_mean, listing

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Iterable, Mapping

    from django.core.management.base import BaseCommand

DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def add_database(parser: ArgumentParser) -> None:
    parser.add_argument("--database", help="The database of the outbox. Default: the router's.")


def add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="Print JSON.")


def add_filters(parser: ArgumentParser) -> None:
    """The flags that say which letters are meant."""
    parser.add_argument("--lane", action="append", dest="lanes", metavar="ALIAS", help="Of this lane; repeatable.")
    parser.add_argument("--event", metavar="NAME", help="Events of this name.")
    parser.add_argument("--reason", metavar="TEXT", help="With this text in the reason, in capitals or not.")
    parser.add_argument(
        "--message-id", action="append", dest="message_ids", metavar="ID", help="This event; repeatable."
    )
    parser.add_argument(
        "--since", type=moment, metavar="WHEN", help="Accepted since: a date, a date and time, or 2d, 3h, 30m ago."
    )
    parser.add_argument("--until", type=moment, metavar="WHEN", help="Accepted before.")


def moment(text: str) -> dt.datetime:
    """A date, a date and time (of the site's time zone, if it names none), or a duration before now."""
    if match := DURATION.fullmatch(text.strip()):
        try:
            return timezone.now() - dt.timedelta(**{UNITS[match[2]]: float(match[1])})
        except OverflowError:
            raise ArgumentTypeError(f"{text!r} is too long ago.") from None
    try:
        found = parse_datetime(text)
        if found is None and (day := parse_date(text)):
            found = dt.datetime.combine(day, dt.time())
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r}: {error}") from None
    if found is None:
        raise ArgumentTypeError(f"{text!r} is no date (2026-03-31, 2026-03-31T14:30) and no duration (2d, 3h, 30m).")
    if settings.USE_TZ:
        return timezone.make_aware(found) if timezone.is_naive(found) else found
    return found if timezone.is_naive(found) else timezone.make_naive(found)


def selection(options: Mapping[str, Any], using: str, **more: Any) -> Selection:
    """What the flags of ``add_filters`` mean. Raises ``CommandError`` for a lane that there is not."""
    for lane in options["lanes"] or ():
        check_lane(lane, using)
    return Selection(
        lanes=tuple(options["lanes"] or ()),
        message_ids=tuple(id_.strip().lower() for id_ in options["message_ids"] or ()),
        event=options["event"],
        reason=options["reason"],
        since=options["since"],
        until=options["until"],
        **more,
    )


def check_selected(options: Mapping[str, Any], verb: str) -> None:
    """Raises ``CommandError`` unless something says which letters are meant."""
    names = ("lanes", "event", "reason", "message_ids", "since", "until")
    if not options["all"] and not any(options[name] for name in names):
        raise CommandError(f"which ones? Give a filter such as --lane, or --all to {verb} all.")


def database(options: Mapping[str, Any]) -> str:
    """The database of the outbox. Raises ``CommandError`` if it lacks tables."""
    using = chosen_database(options)
    if not has_tables(using):
        raise CommandError("the outbox has no tables yet: run migrate.")
    return using


def chosen_database(options: Mapping[str, Any]) -> str:
    """The same, with or without tables. Raises ``CommandError`` if there is no such database."""
    from django.db import connections

    using = host.database(options["database"])
    if using not in connections:
        raise CommandError(f"there is no database {using!r}. {did_you_mean(using, connections)}".rstrip())
    return using


def has_tables(using: str) -> bool:
    """Whether the tables of the outbox are there, also those that came with the last version."""
    from django.apps import apps
    from django.db import connections

    tables = {model._meta.db_table for model in apps.get_app_config("pluginhost").get_models()}
    return tables <= set(connections[using].introspection.table_names())


def confirm(command: BaseCommand, question: str, refusal: str) -> None:
    """Raises ``CommandError`` unless somebody says yes; with ``refusal`` for those who do not."""
    try:
        # Not on stdout, where nothing but what the command has to say belongs.
        with redirect_stdout(sys.stderr):
            answer = input(f"{question}, for good? [y/N] ")
    except (EOFError, KeyboardInterrupt) as ended:
        command.stderr.write("", lambda text: text)  # the question has left the line unfinished
        away = "nobody is there to confirm it: give --no-input."
        raise CommandError(away if isinstance(ended, EOFError) else refusal) from None
    if answer.strip().lower() not in ("y", "yes"):
        raise CommandError(refusal)


def known_lanes(using: str) -> list[str]:
    """The enabled lanes in their order, and those that have rows."""
    from pluginhost.models import Account, Delivery, Lane
    from pluginhost.operations import fresh

    rows = {
        *Account.objects.using(using).order_by().values_list("lane", flat=True).distinct(),
        *Delivery.objects.using(using).order_by().values_list("lane", flat=True).distinct(),
        *fresh.count(fresh.accepted(using)),
        *Lane.objects.using(using).values_list("name", flat=True),
    }
    enabled = list(host.registry.runners)
    return [*enabled, *sorted(rows - set(enabled))]


def check_lane(lane: str, using: str) -> None:
    """Raises ``CommandError`` for a lane that neither the settings nor the outbox knows."""
    if lane in host.registry.runners:
        return
    lanes = known_lanes(using)
    if lane not in lanes:
        raise CommandError(f"there is no lane {lane!r}. {did_you_mean(lane, lanes)}The lanes are: {listing(lanes)}.")


def write_json(command: BaseCommand, report: Any) -> None:
    command.stdout.write(json.dumps(report, indent=2, default=_plain))


def _plain(value: Any) -> str:
    """A time as ISO 8601, anything else as text."""
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)


def shown(when: dt.datetime | None) -> str:
    """A time as people read it, in the site's time zone; a dash for none."""
    if when is None:
        return "-"
    return f"{timezone.localtime(when) if timezone.is_aware(when) else when:%Y-%m-%d %H:%M:%S}"


def ago(when: dt.datetime | None) -> str:
    """How long ago, in one unit; ``in …`` for what is to come; a dash for none."""
    if when is None:
        return "-"
    seconds = (timezone.now() - when).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if abs(seconds) >= size or unit == "s":
            text = f"{int(abs(seconds) // size)} {unit}"
            return f"{text} ago" if seconds >= 0 else f"in {text}"
    return "now"


def events(n: int) -> str:
    return f"{n} event" if n == 1 else f"{n} events"


def printable(text: str) -> str:
    """``text`` in one line that commands nothing: names, ids and reasons may be a visitor's, and terminals obey."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def natural(text: str) -> int:
    """For flags: a number from 0 on. Raises ``ArgumentTypeError``."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is no number from 0 on.")
    return int(text)


def told(counts: Mapping[str, int]) -> str:
    """``3 events (mongo 2, piwik 1)``."""
    parts = ", ".join(f"{lane} {n}" for lane, n in counts.items())
    return f"{events(sum(counts.values()))} ({parts})" if parts else events(0)


def progress(command: BaseCommand, verb: str, total: int) -> Callable[[int], None]:
    """Writes to stderr how far it has come, for what takes more than one step."""

    def report(n: int) -> None:
        if n < total:
            command.stderr.write(f"{verb} {n} of {events(total)}", lambda text: text)
            command.stderr.flush()

    return report


def not_enabled(lanes: Iterable[str]) -> list[str]:
    """Those that no enabled alias has."""
    return [lane for lane in lanes if lane not in host.registry.runners]
