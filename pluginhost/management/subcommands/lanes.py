"""``manage.py pluginhost lanes``: the state of each lane at one glance."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pluginhost.delivery.accounts import OUTCOMES
from pluginhost.management.lanes import add_database, add_json, ago, database, printable, shown, write_json
from pluginhost.operations import pausing

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.core.management.base import BaseCommand

    from pluginhost.operations.pausing import LaneView

HELP = "Shows each lane: its state, its account, and what waits."


def add_arguments(parser: ArgumentParser) -> None:
    add_json(parser)
    add_database(parser)


def handle(command: BaseCommand, **options: Any) -> None:
    views = pausing.overview(database(options))
    if options["json"]:
        write_json(command, {"lanes": [{**asdict(view), "state": state(view)} for view in views]})
        return
    if not views:
        command.stdout.write("There is no lane: no enabled plugin delivers events.")
    for view in views:
        _print(command, view)


def state(view: LaneView) -> str:
    """``paused``, ``not enabled``, or ``running``: delivered as soon as a worker runs."""
    if view.paused_at:
        return "paused"
    return "running" if view.enabled else "not enabled"


def _print(command: BaseCommand, view: LaneView) -> None:
    style, write = command.style, command.stdout.write
    note = "" if view.enabled else ", not enabled: its events wait"
    if view.paused_at:
        why = f": {printable(view.paused_because)}" if view.paused_because else ""
        note += f", paused since {shown(view.paused_at)}{why}"
    write(style.MIGRATE_HEADING(view.lane) + note)
    write("  " + ", ".join(f"{outcome} {getattr(view, outcome)}" for outcome in OUTCOMES))
    if view.waiting:
        write(f"  oldest {ago(view.oldest_waiting)}, next due {ago(view.next_due)}, in hand {view.in_hand}")
    if view.trouble:
        write(style.WARNING(f"  trouble {ago(view.trouble_at)}: {printable(view.trouble)}"))
    if not view.balances:
        write(style.ERROR("  the account does not balance: see pluginhost audit"))
