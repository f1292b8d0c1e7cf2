"""``manage.py pluginhost pause LANE``: a lane delivers nothing until it is resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pluginhost.management.lanes import add_database, check_lane, database, events, shown
from pluginhost.operations import pausing

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.core.management.base import BaseCommand

HELP = "Pauses a lane: its events are accepted and wait, until it is resumed."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("lane", metavar="LANE", help="The lane, by its alias.")
    parser.add_argument("--because", metavar="TEXT", default="", help="Why, for those who look at it later.")
    add_database(parser)


def handle(command: BaseCommand, **options: Any) -> None:
    using, lane = database(options), options["lane"]
    check_lane(lane, using)
    pausing.pause(lane, using, options["because"])
    view = next(view for view in pausing.overview(using) if view.lane == lane)
    command.stdout.write(f"{lane} is paused since {shown(view.paused_at)}; waiting: {events(view.waiting)}")
    if view.in_hand:
        command.stdout.write(f"{events(view.in_hand)} in the hands of a worker are still delivered")
