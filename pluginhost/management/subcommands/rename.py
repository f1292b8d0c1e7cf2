"""``manage.py pluginhost rename OLD NEW``: an alias has another name in the settings, and its lane follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from pluginhost.api import host
from pluginhost.delivery import accounts
from pluginhost.management.lanes import add_database, add_json, check_lane, database, events, progress, write_json
from pluginhost.operations import renaming
from pluginhost.options import did_you_mean, listing

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.core.management.base import BaseCommand

HELP = "Gives what belongs to the lane OLD to the lane NEW: its events, its dead letters, its account and its pause."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("old", metavar="OLD", help="The alias as it was.")
    parser.add_argument("new", metavar="NEW", help="The alias as it is in the settings now.")
    parser.add_argument("--merge", action="store_true", help="Also if both hold the same events: NEW delivers them.")
    add_json(parser)
    add_database(parser)


def handle(command: BaseCommand, **options: Any) -> None:
    using, old, new = database(options), options["old"], options["new"]
    runners = host.registry.runners
    if new not in runners:
        raise CommandError(
            f"{new!r} is not enabled. {did_you_mean(new, runners)}Name it in PLUGINHOST['PLUGINS'] first;"
            f" enabled are: {listing(runners)}."
        )
    if old == new:
        raise CommandError("OLD and NEW are the same lane.")
    check_lane(old, using)
    account = accounts.read(using).get(old, {})
    report = progress(command, "moved", account.get("waiting", 0) + account.get("dead", 0))
    try:
        done = renaming.rename(old, new, using, merge=options["merge"], progress=report)
    except renaming.Shared as error:
        raise CommandError(
            f"{old} and {new} both hold the same {events(error.n)}, so {new} would deliver them twice."
            f" With --merge they are delivered by {new} alone."
        ) from None
    if options["json"]:
        write_json(command, done._asdict())
    else:
        command.stdout.write(f"moved {events(done.moved)} from {old} to {new}")
        if done.discarded:
            command.stdout.write(f"discarded {events(done.discarded)} that {new} holds too")
        if old in runners:
            command.stdout.write(f"{old} is still enabled: it goes on receiving events")
    if done.in_hand:
        raise CommandError(f"a worker holds {events(done.in_hand)} of {old}: run this again when it is done.")
