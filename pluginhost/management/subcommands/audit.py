"""``manage.py pluginhost audit``: whether every accepted event is accounted for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from pluginhost.delivery import accounts
from pluginhost.delivery.accounts import OUTCOMES
from pluginhost.management.lanes import add_database, add_json, database, write_json

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.core.management.base import BaseCommand

HELP = "Checks that in each lane accepted = delivered + skipped + waiting + dead + discarded."


def add_arguments(parser: ArgumentParser) -> None:
    add_json(parser)
    add_database(parser)


def handle(command: BaseCommand, **options: Any) -> None:
    found = dict(sorted(accounts.read(database(options)).items()))
    wrong = {lane: accounts.missing(account) for lane, account in found.items() if not accounts.balances(account)}
    if options["json"]:
        lanes = {
            lane: {**account, "missing": accounts.missing(account), "balances": lane not in wrong}
            for lane, account in found.items()
        }
        write_json(command, {"balances": not wrong, "lanes": lanes})
    else:
        for lane, account in found.items():
            verdict = "does not balance" if lane in wrong else "balances"
            counts = ", ".join(f"{outcome} {account[outcome]}" for outcome in OUTCOMES)
            command.stdout.write(f"{lane} {verdict}: {counts}")
        if not found:
            command.stdout.write("There are no accounts: no event has been accepted yet.")
    if wrong:
        raise CommandError("; ".join(f"{lane}: {_in_words(n)}" for lane, n in wrong.items()))


def _in_words(missing: int) -> str:
    if missing > 0:
        return f"{missing} accepted events are not accounted for"
    return f"{-missing} more events are accounted for than were accepted"
