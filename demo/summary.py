"""Compares what was accepted with what was delivered and with what the receivers hold, and prints it."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from django.core.management import call_command
from django.db import transaction

from pluginhost import host
from pluginhost.delivery import accounts
from receivers import RECEIVERS, Arrived

if TYPE_CHECKING:
    from visitor import Visit

COLUMNS = ("accepted", "delivered", "skipped", "waiting", "dead")
NOTHING = Arrived(0, "nobody knows: demo/receivers.py has no entry for it")


def lanes() -> dict[str, dict[str, int]]:
    """The accounts, read in one transaction: the worker moves events between tables meanwhile."""
    using = host.database()
    with transaction.atomic(using):
        return accounts.read(using)


def progress() -> tuple[int, int]:
    """Events accepted for some lane, and those of them that a lane is finished with."""
    found = lanes().values()
    accepted = sum(lane["accepted"] for lane in found)
    return accepted, accepted - sum(lane["waiting"] for lane in found)


def read_plugins() -> list[dict[str, Any]]:
    """The enabled plugins that receive events, as ``manage.py pluginhost list --json`` describes them."""
    output = io.StringIO()
    call_command("pluginhost", "list", "--json", stdout=output)
    return [plugin for plugin in json.loads(output.getvalue())["plugins"] if plugin["event_types"]]


def print_summary(visit: Visit) -> list[str]:
    """Print what became of the visit. Returns what is missing, a line each."""
    plugins, found = read_plugins(), lanes()
    arrived = {plugin["alias"]: RECEIVERS.get(plugin["alias"], lambda _: NOTHING)(visit) for plugin in plugins}
    _print_table(plugins, found, arrived)
    _print_people(visit, arrived)
    problems: list[str] = []
    for plugin in plugins:
        problems += check(plugin, found.get(plugin["alias"], {}), arrived[plugin["alias"]], visit)
    if not problems:
        aliases = ", ".join(arrived)
        print(f"\n  The order that was paid, {visit.paid}, is known to {aliases}.")
        print(f"  The order that was rolled back, {visit.refused}, is known to none of them.")
    return problems


def _print_table(plugins: list[dict[str, Any]], found: dict[str, dict[str, int]], arrived: dict[str, Arrived]) -> None:
    print(f"\n  {'plugin':<14}" + "".join(f"{column:>11}" for column in COLUMNS) + "   the receiver says")
    for plugin in plugins:
        alias = plugin["alias"]
        account = found.get(alias, {})
        numbers = "".join(f"{account.get(column, 0):>11}" for column in COLUMNS)
        print(f"  {alias:<14}{numbers}   {arrived[alias].words}")


def _print_people(visit: Visit, arrived: dict[str, Arrived]) -> None:
    print(f"\n  {'who looked at a product':<41}and who knows of it")
    for person in visit.people:
        knowing = [alias for alias, receiver in arrived.items() if receiver.products & person.products]
        print(f"  {person.words:<41}{', '.join(knowing) or 'nobody'}")


def check(plugin: dict[str, Any], account: dict[str, int], arrived: Arrived, visit: Visit) -> list[str]:
    """What is missing or too much for one plugin."""
    accepted, delivered = account.get("accepted", 0), account.get("delivered", 0)
    problems = []
    if not delivered:
        problems.append("nothing was delivered")
    if (done := delivered + account.get("skipped", 0)) != accepted:
        problems.append(f"{accepted} events were accepted, and {done} delivered or skipped")
    if dead := account.get("dead", 0):
        problems.append(f"{dead} events are dead letters")
    if arrived.events != delivered:
        problems.append(f"{delivered} events were delivered, and the receiver holds {arrived.events}")
    if visit.paid not in arrived.orders:
        problems.append(f"the order that was paid, {visit.paid}, did not arrive")
    if visit.refused in arrived.orders:
        problems.append(f"the order that was rolled back, {visit.refused}, arrived")
    for person in visit.people:
        wanted = person.products if plugin["purpose"] in person.purposes else frozenset()
        if missing := wanted - arrived.products:
            problems.append(f"{person.words}: looked at {', '.join(sorted(missing))}, which did not arrive")
        if unwanted := (person.products & arrived.products) - wanted:
            problems.append(f"{person.words}: looked at {', '.join(sorted(unwanted))}, which must not have arrived")
    return [f"{plugin['alias']}: {problem}." for problem in (*problems, *arrived.problems)]
