"""``manage.py pluginhost``: what is enabled, and the commands that work on it."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser
from copy import copy
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import InterfaceError, OperationalError

from pluginhost.management.subcommands import (
    audit,
    dead,
    discard,
    explain,
    forget,
    lanes,
    pause,
    rename,
    replay,
    resume,
    send_test,
    worker,
)
from pluginhost.management.subcommands import list as list_plugins

if TYPE_CHECKING:
    from argparse import Action
    from collections.abc import Iterable
    from types import ModuleType

#: Each is a module with ``HELP``, ``add_arguments`` and ``handle``.
SUBCOMMANDS: dict[str, ModuleType] = {
    "list": list_plugins,
    "send-test": send_test,
    "worker": worker,
    "lanes": lanes,
    "dead": dead,
    "replay": replay,
    "discard": discard,
    "pause": pause,
    "resume": resume,
    "rename": rename,
    "audit": audit,
    "explain": explain,
    "forget": forget,
}


class Command(BaseCommand):
    help = "Lists the plugins and their lanes; with a subcommand, works on them."

    def add_arguments(self, parser: CommandParser) -> None:
        of_django = [action for action in parser._actions if action.dest != "help"]
        list_plugins.add_arguments(parser)
        parsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", parser_class=ArgumentParser)
        for name, module in SUBCOMMANDS.items():
            subparser = parsers.add_parser(name, help=module.HELP, description=module.HELP)
            module.add_arguments(subparser)
            _share_options(parser, subparser, of_django)

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["subcommand"] or "list"
        try:
            SUBCOMMANDS[name].handle(self, **options)
        except (OperationalError, InterfaceError) as error:
            raise CommandError(f"the database refuses: {str(error).strip().partition(chr(10))[0]}") from error
        except KeyboardInterrupt:
            if name in ("worker", "send-test"):  # the plugin was interrupted: its traceback says where
                raise
            self.stderr.write("", lambda text: text)  # the terminal has shown ^C
            raise CommandError("interrupted. What was done until now is done.", returncode=130) from None


def _share_options(parser: ArgumentParser, subparser: ArgumentParser, of_django: Iterable[Action]) -> None:
    """Let Django's own options stand behind the subcommand too, and keep what stands before it.

    argparse lets a subparser's default overwrite what the parser has read, so the
    subparsers have no defaults for what both know.
    """
    known = {action.dest for action in parser._actions}
    for action in subparser._actions:
        if action.dest in known:
            action.default = SUPPRESS
    for action in of_django:
        shared = copy(action)
        shared.default = shared.help = SUPPRESS
        subparser._add_action(shared)
