"""Runs SQL that is written out: what a worker runs for each batch.

The ORM compiles a statement anew each time it is run, which takes ten times longer
than a database needs for most of these. What is rare stays with the ORM.

The SQL is standard, with double quotes around the names of tables, and with these
words where databases differ:

``{now}``     the moment by the database's clock
``{later}``   so many seconds after it; a parameter says how many
``{locked}``  at the end of a SELECT: lock the rows, and pass over those that others hold
``{ids}``     a list of so many parameters as ``n`` says, in brackets
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db import connections

from pluginhost.db import skip_locked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

#: The same moments as those of ``django.db.models.functions.Now``, in the form in which they are stored.
_NOW = {
    "postgresql": "STATEMENT_TIMESTAMP()",
    "sqlite": "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW')",
    "mysql": "CURRENT_TIMESTAMP(6)",
}
_LATER = {
    "postgresql": "STATEMENT_TIMESTAMP() + %s * INTERVAL '1 second'",
    "sqlite": "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW', %s || ' seconds')",
    "mysql": "CURRENT_TIMESTAMP(6) + INTERVAL %s SECOND",
}


def in_words_of(connection: BaseDatabaseWrapper, sql: str, n: int = 0) -> str:
    """The SQL as this database has it."""
    locked = ""
    if connection.features.has_select_for_update:
        locked = "FOR UPDATE SKIP LOCKED" if skip_locked(connection) else "FOR UPDATE"
    return _in_words_of(connection.vendor, locked, sql, n)


@lru_cache(maxsize=512)
def _in_words_of(vendor: str, locked: str, sql: str, n: int) -> str:
    ids = f"({', '.join(['%s'] * n)})"
    found = sql.format(now=_NOW[vendor], later=_LATER[vendor], locked=locked, ids=ids)
    return " ".join((found.replace('"', "`") if vendor == "mysql" else found).split())


def select(using: str, sql: str, parameters: Sequence[Any] = (), *, n: int = 0) -> list[tuple[Any, ...]]:
    """The rows that a SELECT finds, as the driver gives them."""
    connection = connections[using]
    with connection.cursor() as cursor:
        cursor.execute(in_words_of(connection, sql, n), parameters)
        return list(cursor.fetchall())


def execute(using: str, sql: str, parameters: Sequence[Any] = (), *, n: int = 0) -> int:
    """How many rows an INSERT, UPDATE or DELETE has changed."""
    connection = connections[using]
    with connection.cursor() as cursor:
        cursor.execute(in_words_of(connection, sql, n), parameters)
        return int(cursor.rowcount)


def insert(using: str, sql: str, parameters: Sequence[Any]) -> int:
    """The id of the one row that an INSERT has made."""
    connection = connections[using]
    returning = connection.vendor == "postgresql"
    with connection.cursor() as cursor:
        cursor.execute(in_words_of(connection, f"{sql} RETURNING id" if returning else sql), parameters)
        return int(cursor.fetchone()[0] if returning else cursor.lastrowid)
