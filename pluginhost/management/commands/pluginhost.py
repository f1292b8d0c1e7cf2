"""``manage.py pluginhost``: what is enabled, and the commands that work on it."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandParser

from pluginhost.management.subcommands import list as list_plugins
from pluginhost.management.subcommands import worker

if TYPE_CHECKING:
    from types import ModuleType

#: Each is a module with ``HELP``, ``add_arguments`` and ``handle``.
SUBCOMMANDS: dict[str, ModuleType] = {"list": list_plugins, "worker": worker}


class Command(BaseCommand):
    help = "Lists the plugins and their lanes; with a subcommand, works on them."

    def add_arguments(self, parser: CommandParser) -> None:
        list_plugins.add_arguments(parser)
        subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", parser_class=ArgumentParser)
        for name, module in SUBCOMMANDS.items():
            module.add_arguments(subparsers.add_parser(name, help=module.HELP, description=module.HELP))

    def handle(self, *args: Any, **options: Any) -> None:
        SUBCOMMANDS[options["subcommand"] or "list"].handle(self, **options)
