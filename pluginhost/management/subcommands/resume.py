"""``manage.py pluginhost resume LANE``: a lane that was paused delivers again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pluginhost.management.lanes import add_database, check_lane, database
from pluginhost.operations import pausing

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.core.management.base import BaseCommand

HELP = "Resumes a lane that was paused: workers deliver it again, within a second or so."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("lane", metavar="LANE", help="The lane, by its alias.")
    add_database(parser)


def handle(command: BaseCommand, **options: Any) -> None:
    using, lane = database(options), options["lane"]
    check_lane(lane, using)
    was_paused = lane in pausing.paused(using)
    pausing.resume(lane, using)
    command.stdout.write(f"{lane} is resumed" if was_paused else f"{lane} was not paused")
