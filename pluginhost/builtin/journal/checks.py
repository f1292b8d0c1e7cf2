"""System checks of the plugin's aliases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core import checks
from django.db import connections, router

from pluginhost.builtin.journal.models import Entry
from pluginhost.builtin.journal.plugin import Journal
from pluginhost.db import counts_new_rows
from pluginhost.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_alias(plugin: Journal) -> list[checks.CheckMessage]:
    """What would keep this alias from writing, or make it write in the wrong place."""
    if plugin.database not in connections:
        return [
            checks.Error(
                f"plugin {plugin.alias}: DATABASE is {plugin.database!r}, which is not in DATABASES.",
                hint=f"There are: {', '.join(connections)}.",
                id="pluginhost.E020",
            )
        ]
    return [*_engine(plugin), *_other_aliases(plugin), *_routes(plugin)]


def _engine(plugin: Journal) -> Iterator[checks.CheckMessage]:
    if not counts_new_rows(connections[plugin.database]):
        yield checks.Error(
            f"plugin {plugin.alias}: the database {plugin.database!r} can't say which rows of an INSERT are new.",
            hint="Keep the journal in PostgreSQL, MariaDB, MySQL, or SQLite 3.35 or newer.",
            id="pluginhost.E021",
        )


def _other_aliases(plugin: Journal) -> Iterator[checks.CheckMessage]:
    for alias, loaded in load_registry().plugins.items():
        other = loaded.plugin
        if isinstance(other, Journal) and alias < plugin.alias and other.database == plugin.database:
            yield checks.Error(
                f"plugins {alias} and {plugin.alias} both write to the journal in the database {plugin.database!r}.",
                hint="Each would take the other's entries for its own. Remove one of them, or set another DATABASE.",
                id="pluginhost.E022",
            )


def _routes(plugin: Journal) -> Iterator[checks.CheckMessage]:
    database = router.db_for_write(Entry)
    if database != plugin.database:
        yield checks.Warning(
            f"plugin {plugin.alias}: DATABASE is {plugin.database!r},"
            f" but the router sends the journal to {database!r}.",
            hint="Set DATABASE_ROUTERS so that both are the same: queries, migrations and the admin follow the router.",
            id="pluginhost.W020",
        )
