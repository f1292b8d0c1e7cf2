"""The database of the outbox: its options, and what only the database itself can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage, Tags, register
from django.core.checks import Warning as Caution
from django.db import connections, router

from pluginhost.conf import get_settings
from pluginhost.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.apps import AppConfig
    from django.db.backends.base.base import BaseDatabaseWrapper

#: The transports that keep events in the database.
STORING = ("outbox", "celery")


@register("pluginhost")
def check_database_options(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001
    """Options of the database of the outbox. Opens no connection."""
    try:
        settings = get_settings()
    except ConfigurationError:
        return []  # reported with the plugins
    return list(_sqlite_messages()) if settings.TRANSPORT in STORING else []


def _sqlite_messages() -> Iterator[CheckMessage]:
    connection = _outbox_connection()
    if connection.vendor == "sqlite" and connection.settings_dict["OPTIONS"].get("transaction_mode") != "IMMEDIATE":
        yield Caution(
            f"Transactions on the SQLite database {connection.alias!r} begin without the write lock.",
            hint='Set OPTIONS["transaction_mode"] = "IMMEDIATE": otherwise a view and a worker that write at'
            ' the same time make one of them fail with "database is locked".',
            id="pluginhost.W001",
        )


def _outbox_connection() -> BaseDatabaseWrapper:
    from pluginhost.models import Envelope

    return connections[router.db_for_write(Envelope)]


@register(Tags.database)
def check_databases(
    app_configs: Sequence[AppConfig] | None,  # noqa: ARG001
    databases: Sequence[str] | None = None,
    **kwargs: Any,  # noqa: ARG001
) -> list[CheckMessage]:
    """What only the database of the outbox itself can tell."""
    try:
        settings = get_settings()
    except ConfigurationError:
        return []
    connection = _outbox_connection()
    if settings.TRANSPORT not in STORING or connection.alias not in (databases or ()):
        return []
    if connection.vendor == "sqlite":
        return list(_sqlite_file_messages(connection))
    if connection.vendor != "postgresql":
        return [
            Caution(
                f"The outbox is not tested on {connection.display_name}, the database {connection.alias!r}.",
                hint="Route the app pluginhost to PostgreSQL or SQLite.",
                id="pluginhost.W004",
            )
        ]
    return []


def _sqlite_file_messages(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        mode = cursor.fetchone()[0]
    if mode not in ("wal", "memory"):
        yield Caution(
            f"The SQLite database {connection.alias!r} keeps its journal as {mode!r}.",
            hint='Set OPTIONS["init_command"] = "PRAGMA journal_mode=WAL;": otherwise readers and the worker'
            " wait for each other.",
            id="pluginhost.W003",
        )
