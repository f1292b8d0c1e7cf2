"""The SQL that the ORM lacks: is this a transaction, take the write lock, add to counters in one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connections, models

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper


def in_transaction(using: str) -> bool:
    """Whether a statement on this database would become part of a transaction. Opens no connection."""
    connection = connections[using]
    if connection.connection is None:
        return not connection.settings_dict["AUTOCOMMIT"]
    return connection.in_atomic_block or not connection.autocommit


def take_write_lock(connection: BaseDatabaseWrapper, model: type[models.Model]) -> None:
    """On SQLite, take the write lock as the first act of a transaction; elsewhere, nothing.

    A transaction that reads first and writes later fails at once with "database is
    locked" when another one wrote in between; one that writes first waits its turn.
    """
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(model._meta.db_table)} WHERE 0")  # noqa: S608


def skip_locked(connection: BaseDatabaseWrapper) -> bool:
    """The argument of ``select_for_update``: pass over what other workers hold, where the database can."""
    return connection.features.has_select_for_update_skip_locked


def add_up(
    model: type[models.Model],
    rows: Iterable[Mapping[str, Any]],
    *,
    key: Sequence[str],
    add: Sequence[str],
    using: str,
) -> None:
    """Add to counters: one upsert for many rows, exact under concurrency.

    Each row maps names of fields to values. ``key`` are the fields of a unique
    constraint, ``add`` those that are added to what is stored; a row that does not
    exist is made, with defaults for all other fields. No two rows may have the same
    key. Rows are written in the order of their keys, so that two writers never wait
    for each other in a circle. A CHECK constraint judges the row as it is given: what
    is subtracted needs a statement of its own.
    """
    connection = connections[using]
    fields = [field for field in model._meta.concrete_fields if _is_written(field)]
    ordered = sorted(rows, key=lambda row: [str(row[name]) for name in key])
    size = max(1, (connection.features.max_query_params or 30_000) // len(fields))
    for start in range(0, len(ordered), size):
        _upsert(connection, model, fields, ordered[start : start + size], key, add)


def _is_written(field: models.Field[Any, Any]) -> bool:
    """Whether we give the column a value; the others get theirs from the database."""
    by_database = field.generated or (field.has_db_default() and not field.has_default())
    return not (field.primary_key or by_database)


def _upsert(
    connection: BaseDatabaseWrapper,
    model: type[models.Model],
    fields: Sequence[models.Field[Any, Any]],
    rows: Sequence[Mapping[str, Any]],
    key: Sequence[str],
    add: Sequence[str],
) -> None:
    quote = connection.ops.quote_name
    table = quote(model._meta.db_table)
    columns = {field.name: quote(str(field.column)) for field in fields}
    values = [
        field.get_db_prep_save(row.get(field.attname, row.get(field.name, field.get_default())), connection)
        for row in rows
        for field in fields
    ]
    one = f"({', '.join(['%s'] * len(fields))})"
    sql = f"INSERT INTO {table} ({', '.join(columns.values())}) VALUES {', '.join([one] * len(rows))} "  # noqa: S608
    if connection.vendor == "mysql":
        sums = ", ".join(f"{columns[name]} = {columns[name]} + VALUES({columns[name]})" for name in add)
        sql += f"ON DUPLICATE KEY UPDATE {sums}"
    else:
        sums = ", ".join(f"{columns[name]} = {table}.{columns[name]} + EXCLUDED.{columns[name]}" for name in add)
        sql += f"ON CONFLICT ({', '.join(columns[name] for name in key)}) DO UPDATE SET {sums}"
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
