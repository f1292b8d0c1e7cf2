"""The database of the outbox: its options, and what only the database itself can tell."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as Caution
from django.db import connections, router
from django.utils import timezone

from pluginhost.conf import get_settings
from pluginhost.exceptions import ConfigurationError
from pluginhost.options import listing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.apps import AppConfig
    from django.db.backends.base.base import BaseDatabaseWrapper

#: The transports that keep events in the database.
STORING = ("outbox", "celery")
#: Seconds that SQLite waits for a lock unless told otherwise (the default of Python's sqlite3).
PATIENCE = 5
#: From here on there is FOR UPDATE SKIP LOCKED.
OLDEST = {"MariaDB": (10, 6), "MySQL": (8, 0, 1)}
#: Bytes of a statement that the server has to take: a chunk of 1 MiB, each byte of it escaped, and what is around it.
PACKET = 4 * 1024 * 1024


@register("pluginhost")
def check_database_options(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001
    """Options of the database of the outbox. Opens no connection."""
    try:
        settings = get_settings()
    except ConfigurationError:
        return []  # reported with the plugins
    return list(_option_messages()) if settings.TRANSPORT in STORING else []


def _option_messages() -> Iterator[CheckMessage]:
    connection = _outbox_connection()
    options = connection.settings_dict["OPTIONS"]
    if connection.vendor == "sqlite":
        if options.get("transaction_mode") != "IMMEDIATE":
            yield Caution(
                f"Transactions on the SQLite database {connection.alias!r} begin without the write lock.",
                hint='Set OPTIONS["transaction_mode"] = "IMMEDIATE": otherwise a view and a worker that write at'
                ' the same time make one of them fail with "database is locked".',
                id="pluginhost.W001",
            )
        if options.get("timeout", PATIENCE) < PATIENCE:
            yield Caution(
                f"Who writes to the SQLite database {connection.alias!r} waits {options['timeout']} s for others.",
                hint=f'Leave out OPTIONS["timeout"], or set it to {PATIENCE} or more: a worker writes too, and visitors'
                ' who do not wait for it see "database is locked".',
                id="pluginhost.W014",
            )
    elif connection.vendor == "mysql":
        level = str(options.get("isolation_level", "read committed") or "the server's").lower()
        if level not in ("read committed", "read uncommitted"):
            yield Caution(
                f"Transactions on the database {connection.alias!r} are isolated as {level!r}.",
                hint='Leave out OPTIONS["isolation_level"], or set it to "read committed", at least in the settings of'
                " the worker: at others InnoDB locks gaps between rows, and workers make visitors and each other wait.",
                id="pluginhost.W015",
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
    if connection.vendor == "mysql":
        return list(_mysql_messages(connection))
    if connection.vendor != "postgresql":
        return [_unsupported(connection.display_name, connection.alias)]
    return []


def _unsupported(what: str, alias: str) -> CheckMessage:
    return Error(
        f"The outbox does not work on {what}, the database {alias!r}: no worker could empty it.",
        hint="Route the app pluginhost to PostgreSQL, MariaDB 10.6 or newer, or SQLite.",
        id="pluginhost.E015",
    )


def _untested(what: str, alias: str) -> CheckMessage:
    return Caution(
        f"The outbox is not tested on {what}, the database {alias!r}.",
        hint="Route the app pluginhost to PostgreSQL, MariaDB 10.6 or newer, or SQLite.",
        id="pluginhost.W004",
    )


def _mysql_messages(connection: Any) -> Iterator[CheckMessage]:
    """What is wrong for the outbox with this server, this database and our tables in it."""
    alias = connection.alias
    name = "MariaDB" if connection.mysql_is_mariadb else "MySQL"
    version = ".".join(map(str, connection.mysql_version))
    if name == "MySQL" or connection.mysql_version < OLDEST[name]:
        yield _untested(f"{name} {version}", alias)
    if connection.mysql_version < OLDEST[name]:
        yield Caution(
            f"{name} {version}, the database {alias!r}, lacks SKIP LOCKED.",
            hint=f"Upgrade to {name} {'.'.join(map(str, OLDEST[name]))} or newer: workers wait for each other.",
            id="pluginhost.W016",
        )
    yield from _clock_messages(connection)
    yield from _mysql_table_messages(connection)
    yield from _mysql_variable_messages(connection)


def _mysql_table_messages(connection: Any) -> Iterator[CheckMessage]:
    alias = connection.alias
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE()"
            r" AND table_name LIKE 'pluginhost\_%%' AND engine <> 'InnoDB' ORDER BY table_name"
        )
        engines = dict(cursor.fetchall())
        cursor.execute(
            "SELECT character_maximum_length FROM information_schema.columns WHERE table_schema = DATABASE()"
            " AND table_name = 'pluginhost_envelope' AND column_name = 'envelope_id' AND data_type = 'char'"
        )
        text_ids = cursor.fetchone() is not None
    if engines:
        yield Error(
            f"Tables of the outbox in the database {alias!r} are not of InnoDB: {listing(engines)}.",
            hint="Convert them with ALTER TABLE … ENGINE=InnoDB, and set default_storage_engine: others have no"
            " transactions, so events would be lost, and sent twice.",
            id="pluginhost.E018",
        )
    if text_ids and connection.features.has_native_uuid_field:
        yield Error(
            f"The database {alias!r} keeps UUIDs as text, and Django takes this server for one that knows them.",
            hint="The tables were made before the upgrade to MariaDB 10.7. Convert the columns: ALTER TABLE"
            " pluginhost_envelope MODIFY envelope_id uuid NOT NULL; ALTER TABLE pluginhost_delivery MODIFY token uuid.",
            id="pluginhost.E019",
        )


def _mysql_variable_messages(connection: Any) -> Iterator[CheckMessage]:
    alias = connection.alias
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@max_allowed_packet, @@character_set_database, @@innodb_rollback_on_timeout")
        packet, charset, rolls_back = cursor.fetchone()
    if packet < PACKET:
        yield Caution(
            f"The database {alias!r} takes statements of {packet} bytes at most.",
            hint=f"Set max_allowed_packet to {PACKET // 1024**2}M or more: large events would be refused.",
            id="pluginhost.W017",
        )
    if charset != "utf8mb4":
        yield Caution(
            f"The database {alias!r} keeps texts as {charset}.",
            hint="Convert it to utf8mb4: dead letters of events with characters that it lacks can't be written.",
            id="pluginhost.W018",
        )
    if rolls_back:
        yield Caution(
            f"The server of the database {alias!r} rolls back whole transactions when a lock is waited for too long.",
            hint="Turn off innodb_rollback_on_timeout: code that goes on after such an error would write half of what"
            " it meant to write.",
            id="pluginhost.W019",
        )


def _clock_messages(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    """The host's times are the server's, which Django reads as those of the project's time zone, or of UTC."""
    zone = dt.UTC if django_settings.USE_TZ else timezone.get_default_timezone()
    expected = dt.datetime.now(zone).utcoffset() or dt.timedelta()
    with connection.cursor() as cursor:
        cursor.execute("SELECT TIMESTAMPDIFF(MINUTE, UTC_TIMESTAMP(), NOW())")
        minutes = cursor.fetchone()[0]
    if minutes != expected.total_seconds() // 60:
        set_to = "+00:00" if django_settings.USE_TZ else str(zone)
        yield Caution(
            f"The clock of the database {connection.alias!r} is {minutes} minutes from UTC; Django does not know that.",
            hint=f"""Set OPTIONS["init_command"] = "SET time_zone = '{set_to}'": otherwise times are read wrongly,"""
            " and jump when the clocks change.",
            id="pluginhost.W021",
        )


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
