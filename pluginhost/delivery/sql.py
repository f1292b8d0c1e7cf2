"""Runs SQL that is written out: what a worker runs for each batch.

The ORM compiles a statement anew each time it is run, which takes ten times longer
than a database needs for most of these. What is rare stays with the ORM.

The SQL is standard, with double quotes around the names of tables, and with these
words where databases differ:

``{now}``     the moment by the database's clock
``{later}``   so many seconds after it; a parameter says how many
``{locked}``  at the end of a SELECT: lock the rows, and pass over those that others hold
``{ids}``     ids, in brackets; no parameter comes after them
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db import connections

from pluginhost.db import skip_locked

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.utils import CursorWrapper

#: Stands for ids until a statement is run.
IDS = "{ids}"
#: Rows with payloads that are in memory at a time while they are read one after the other.
AT_A_TIME = 10
#: As ``django.db.models.functions.Now`` has it. SQLite compares texts: those with all six digits are not before their
#: own millisecond.
_NOW = {
    "postgresql": "STATEMENT_TIMESTAMP()",
    "sqlite": "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f000', 'NOW')",
    "mysql": "CURRENT_TIMESTAMP(6)",
}
_LATER = {
    "postgresql": "STATEMENT_TIMESTAMP() + %s * INTERVAL '1 second'",
    "sqlite": "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f000', 'NOW', %s || ' seconds')",
    "mysql": "CURRENT_TIMESTAMP(6) + INTERVAL %s SECOND",
}


def in_words_of(connection: BaseDatabaseWrapper, sql: str) -> str:
    """The SQL as this database has it; ``{ids}`` stays."""
    locked = ""
    if connection.features.has_select_for_update:
        locked = "FOR UPDATE SKIP LOCKED" if skip_locked(connection) else "FOR UPDATE"
    return _in_words_of(connection.vendor, locked, sql)


@lru_cache(maxsize=64)
def _in_words_of(vendor: str, locked: str, sql: str) -> str:
    found = sql.format(now=_NOW[vendor], later=_LATER[vendor], locked=locked, ids=IDS)
    return " ".join((found.replace('"', "`") if vendor == "mysql" else found).split())


def _run(
    connection: BaseDatabaseWrapper, cursor: CursorWrapper, sql: str, parameters: Sequence[Any], ids: Collection[int]
) -> None:
    """Run it. Ids are not hundreds of parameters: it takes drivers longer to pass them than databases to read them."""
    sql = in_words_of(connection, sql)
    if not ids:
        cursor.execute(sql, parameters)
    elif connection.vendor == "sqlite" and connection.features.supports_json_field:
        # Its driver keeps statements, so the text should be one that comes again.
        cursor.execute(sql.replace(IDS, "(SELECT value FROM json_each(%s))"), [*parameters, json.dumps([*ids])])
    else:
        numbers = ",".join([str(int(id_)) for id_ in ids])
        if connection.vendor == "postgresql":  # one array, where each number of a list is an expression of its own
            sql = sql.replace(f"IN {IDS}", f"= ANY('{{{numbers}}}'::bigint[])")
        cursor.execute(sql.replace(IDS, f"({numbers})"), parameters)


@contextmanager
def _binary_cursor(connection: BaseDatabaseWrapper) -> Iterator[CursorWrapper]:
    """A cursor that passes payloads as they are.

    On PostgreSQL, Django's own write them into the text of the statement, and read them, in
    hexadecimal digits, which takes three times as long. psycopg's send them beside it, in binary.
    """
    if connection.vendor != "postgresql" or not _is_psycopg3():
        with connection.cursor() as cursor:
            yield cursor
        return
    from psycopg import Cursor
    from psycopg.pq import Format

    connection.ensure_connection()
    driver: Any = connection.connection
    usual, driver.cursor_factory = driver.cursor_factory, Cursor
    try:
        cursor = connection.cursor()
    finally:
        driver.cursor_factory = usual
    with cursor:
        cursor.cursor.format = Format.BINARY
        yield cursor


def _is_psycopg3() -> bool:
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return bool(is_psycopg3)


def select(
    using: str, sql: str, parameters: Sequence[Any] = (), *, ids: Collection[int] = (), binary: bool = False
) -> list[tuple[Any, ...]]:
    """The rows that a SELECT finds, as the driver gives them. ``binary`` for those with payloads."""
    connection = connections[using]
    with _binary_cursor(connection) if binary else connection.cursor() as cursor:
        _run(connection, cursor, sql, parameters, ids)
        return list(cursor.fetchall())


def stream(using: str, sql: str, parameters: Sequence[Any] = ()) -> Generator[tuple[Any, ...], None, None]:
    """The same, one row after the other. Close it, unless it is read to its end."""
    connection = connections[using]
    with connection.cursor() as cursor:
        _run(connection, cursor, sql, parameters, ())
        while rows := cursor.fetchmany(AT_A_TIME):
            yield from rows


def execute(using: str, sql: str, parameters: Sequence[Any] = (), *, ids: Collection[int] = ()) -> int:
    """How many rows an INSERT, UPDATE or DELETE has changed."""
    connection = connections[using]
    with connection.cursor() as cursor:
        _run(connection, cursor, sql, parameters, ids)
        return int(cursor.rowcount)


def insert(using: str, sql: str, parameters: Sequence[Any]) -> int:
    """The id of the one row that an INSERT has made; one with a payload."""
    connection = connections[using]
    returning = connection.vendor == "postgresql"
    with _binary_cursor(connection) as cursor:
        _run(connection, cursor, f"{sql} RETURNING id" if returning else sql, parameters, ())
        return int(cursor.fetchone()[0] if returning else cursor.lastrowid)
