"""``manage.py pluginhost list``: the plugins in their order, and what is in their lanes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from pluginhost import __version__
from pluginhost.api import host
from pluginhost.conf import get_settings
from pluginhost.loading import entry_points
from pluginhost.management.lanes import chosen_database, has_tables

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.core.management.base import BaseCommand

    from pluginhost.loading import Loaded

HELP = "Lists the plugins in their order, and the events in their lanes."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    parser.add_argument("--database", help="The database of the outbox. Default: the router's.")


def handle(command: BaseCommand, **options: Any) -> None:
    report = build_report(options["database"])
    if options["json"]:
        command.stdout.write(json.dumps(report, indent=2, default=str))
    else:
        _print(command, report)


def build_report(database: str | None) -> dict[str, Any]:
    """What ``--json`` prints. Lanes are None where the outbox has no tables yet."""
    settings = get_settings()
    plugins = host.registry.plugins
    return {
        "pluginhost": __version__,
        "enabled": settings.ENABLED,
        "transport": settings.TRANSPORT,
        "plugins": [_describe(loaded) for loaded in plugins.values()],
        "installed": sorted({entry_point.name for entry_point in entry_points()}),
        "lanes": _lanes(database),
    }


def _describe(loaded: Loaded) -> dict[str, Any]:
    plugin = loaded.plugin
    return {
        "alias": plugin.alias,
        "plugin": plugin.lane.PLUGIN or plugin.alias,
        "distribution": loaded.distribution,
        "version": loaded.version,
        "hooks": list(loaded.hooks),
        "purpose": plugin.purpose,
        "event_types": sorted(plugin.event_types) if loaded.delivery_hook else [],
        "personal_data": plugin.personal_data,
        "options": {
            field.name: _shown(getattr(plugin.options, field.name)) for field in msgspec.structs.fields(plugin.options)
        },
    }


def _shown(value: Any) -> Any:
    """An option as JSON holds it; a secret as stars."""
    return msgspec.to_builtins(value, enc_hook=str)


def _lanes(database: str | None) -> dict[str, dict[str, int]] | None:
    from pluginhost.delivery import accounts

    using = chosen_database({"database": database})
    return accounts.read(using) if has_tables(using) else None


def _print(command: BaseCommand, report: dict[str, Any]) -> None:
    style, write = command.style, command.stdout.write
    state = "" if report["enabled"] else ", turned off by ENABLED"
    write(f"pluginhost {report['pluginhost']}, transport {report['transport']}{state}")
    if not report["plugins"]:
        write("No plugin is enabled. Installed are: " + (", ".join(report["installed"]) or "none"))
    for plugin in report["plugins"]:
        write(style.MIGRATE_HEADING(f"\n{plugin['alias']}"))
        write(f"  {plugin['distribution']} {plugin['version']}, purpose {plugin['purpose']}")
        write(f"  hooks: {', '.join(plugin['hooks']) or 'none'}")
        if plugin["options"]:
            write("  options: " + ", ".join(f"{name}={value!r}" for name, value in plugin["options"].items()))
    lanes = report["lanes"]
    if lanes is None:
        write("\nThe outbox has no tables yet: run migrate.")
        return
    known = {plugin["alias"] for plugin in report["plugins"]}
    for lane, account in lanes.items():
        note = "" if lane in known else "  (not enabled: its events wait)"
        write(f"\nlane {lane}{note}\n  " + ", ".join(f"{outcome} {n}" for outcome, n in account.items()))
