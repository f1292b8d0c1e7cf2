"""The SQL that the ORM lacks: is this a transaction, take the write lock, add to counters in one statement."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from secrets import token_hex
from typing import TYPE_CHECKING, Any, ClassVar

from django.db import DatabaseError, Error, connections, models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger("pluginhost.db")


def in_transaction(using: str) -> bool:
    """Whether a statement on this database would become part of a transaction. Opens no connection."""
    connection = connections[using]
    if connection.connection is None:
        return not connection.settings_dict["AUTOCOMMIT"]
    return connection.in_atomic_block or not connection.autocommit


@contextmanager
def harmless() -> Iterator[None]:
    """Run what is not the site's own, so that a statement of it that fails dooms no transaction of the site's.

    PostgreSQL refuses all that follows a failed statement, even if its error was
    caught, and turns the COMMIT into a ROLLBACK. So in an open transaction the first
    statement sets a savepoint, to which the transaction goes back if one fails. No
    statement, no cost.
    """
    guards = [
        _Guard(connection)
        for connection in connections.all(initialized_only=True)
        if connection.vendor == "postgresql" and in_transaction(connection.alias)
    ]
    if not guards:
        yield
        return
    try:
        with ExitStack() as stack:
            for guard in guards:
                stack.enter_context(guard.connection.execute_wrapper(guard))
            yield
    finally:
        for guard in guards:
            guard.end()


class _Guard:
    """Watches the statements on one connection, from a savepoint before the first one."""

    #: The connections on which a guard runs a statement of its own, which no guard watches.
    _busy: ClassVar[set[BaseDatabaseWrapper]] = set()

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self._name = connection.ops.quote_name(f"pluginhost_{token_hex(4)}")
        self._begun = self._failed = False
        self._needed_rollback = connection.needs_rollback
        self._outer = next((each for each in reversed(connection.execute_wrappers) if isinstance(each, _Guard)), None)
        self._outer_had_failed = self._outer is not None and self._outer._failed

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        if self.connection in self._busy:
            return execute(sql, params, many, context)
        if not self._begun:
            self._begun = True
            self._run("SAVEPOINT")
        try:
            return execute(sql, params, many, context)
        except DatabaseError:
            self._failed = True
            raise

    def end(self) -> None:
        """Undo what was done, if a statement failed; forget the savepoint."""
        if not self._begun:
            return
        if self._failed:
            # Django itself may have marked the transaction, which is whole again now.
            self.connection.needs_rollback = self._needed_rollback
            if self._run("ROLLBACK TO SAVEPOINT") and self._outer is not None:
                self._outer._failed = self._outer_had_failed
        self._run("RELEASE SAVEPOINT")

    def _run(self, statement: str) -> bool:
        self._busy.add(self.connection)
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(f"{statement} {self._name}")
        except Error:  # the connection is lost, or the transaction was doomed before we came
            logger.warning("%s failed on the database %r", statement, self.connection.alias, exc_info=True)
            return False
        finally:
            self._busy.discard(self.connection)
        return True


def returns_new_rows(connection: BaseDatabaseWrapper) -> bool:
    """Whether ``INSERT … ON CONFLICT DO NOTHING RETURNING`` says which rows were not there before."""
    if connection.vendor == "sqlite":  # from 3.35 on
        return connection.features.can_return_rows_from_bulk_insert
    return connection.vendor == "postgresql"


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
