"""The SQL that the ORM lacks: is this a transaction, take the write lock, add to counters in one statement."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from decimal import Decimal
from secrets import token_hex
from typing import TYPE_CHECKING, Any, ClassVar

from django.db import DatabaseError, Error, connections, models
from django.utils.connection import ConnectionDoesNotExist

from pluginhost import mysql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger("pluginhost.db")


def in_transaction(using: str) -> bool:
    """Whether a statement on this database would become part of a transaction. Opens no connection."""
    return is_open(connections[using])


def is_open(connection: BaseDatabaseWrapper) -> bool:
    """The same of a connection."""
    if connection.connection is None:
        return not connection.settings_dict["AUTOCOMMIT"]
    return connection.in_atomic_block or not connection.autocommit


#: The databases that this process has been connected to, and on which one statement can harm a whole transaction.
#: A dict, as several threads may connect for the first time at once.
_delicate: dict[str, None] = {}


def note_connections() -> None:
    """At the start: those that are there already, and those that begin with a transaction."""
    for alias, database in connections.settings.items():
        if not database.get("AUTOCOMMIT", True):  # one that was added by hand may lack it
            note_connection(connection=connections[alias])
    for connection in connections.all(initialized_only=True):
        note_connection(connection=connection)


def note_connection(*, connection: BaseDatabaseWrapper, **_: object) -> None:
    """Receiver of ``connection_created``."""
    # Django names a connection to a server, to no database of it, by an alias that it can't be found by.
    if connection.vendor in ("postgresql", "mysql") and connection.alias in connections.settings:
        _delicate[connection.alias] = None


def harmless() -> AbstractContextManager[None]:
    """Runs what is not the site's own, so that a statement of it that fails dooms no transaction of the site's.

    PostgreSQL refuses all that follows a failed statement, even if its error was
    caught, and turns the COMMIT into a ROLLBACK. So in an open transaction the first
    statement sets a savepoint, to which the transaction goes back if one fails. No
    statement, no cost.

    MySQL and MariaDB undo the whole transaction if a statement is the victim of a
    deadlock. What comes next must not be committed as if nothing had happened.
    """
    return _Harmless() if _delicate else _NOTHING


_NOTHING = nullcontext()


class _Harmless:
    """What is done about it where one statement can harm."""

    __slots__ = ("_watched",)

    def __enter__(self) -> None:
        self._watched: list[tuple[BaseDatabaseWrapper, Callable[..., Any]]] = []
        for alias in tuple(_delicate):
            try:
                connection = connections[alias]
            except ConnectionDoesNotExist:  # it is configured no longer
                continue
            if is_open(connection):
                watcher = mysql.see_victims if connection.vendor == "mysql" else _Guard(connection)
                connection.execute_wrappers.append(watcher)
                self._watched.append((connection, watcher))

    def __exit__(self, *error: object) -> None:
        for connection, watcher in self._watched:
            if watcher in connection.execute_wrappers:  # who ran here may have put others behind it, or taken it away
                connection.execute_wrappers.remove(watcher)
        for _, watcher in self._watched:
            if isinstance(watcher, _Guard):
                watcher.end()


class _Guard:
    """Watches the statements on one connection, from a savepoint before the first one."""

    #: The connections on which a guard runs a statement of its own, which no guard watches.
    _busy: ClassVar[set[BaseDatabaseWrapper]] = set()

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self._begun = self._failed = False

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        if self.connection in self._busy:
            return execute(sql, params, many, context)
        if not self._begun:
            self._begin()
        try:
            return execute(sql, params, many, context)
        except DatabaseError:
            self._failed = True
            raise

    def _begin(self) -> None:
        self._begun = True
        self._session = self.connection.connection
        self._name = self.connection.ops.quote_name(f"pluginhost_{token_hex(4)}")
        self._needed_rollback = self.connection.needs_rollback
        wrappers = self.connection.execute_wrappers
        outer = [each for each in wrappers[: wrappers.index(self)] if isinstance(each, _Guard)]
        self._outer = outer[-1] if outer else None
        self._outer_had_failed = self._outer is not None and self._outer._failed
        self._run("SAVEPOINT")

    def end(self) -> None:
        """Undo what was done, if a statement failed; forget the savepoint. With its connection it is gone."""
        if not self._begun or self.connection.connection is not self._session:
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


def upsert(row: models.Model, *names: str, using: str) -> None:
    """Insert a row, or give these fields of the row with its primary key its values; that row is then locked."""
    model = type(row)
    key = model._meta.pk
    assert key is not None
    # MySQL and MariaDB find the conflict themselves, and take no field for it.
    unique = None if connections[using].vendor == "mysql" else [key.name]
    model._default_manager.using(using).bulk_create(
        [row], update_conflicts=True, update_fields=names, unique_fields=unique
    )


def counts_new_rows(connection: BaseDatabaseWrapper) -> bool:
    """Whether ``insert_new`` works here: PostgreSQL, SQLite from 3.35 on, MariaDB and MySQL."""
    if connection.vendor == "sqlite":
        return connection.features.can_return_rows_from_bulk_insert
    return connection.vendor in ("postgresql", "mysql")


def insert_new(
    model: type[models.Model],
    fields: Sequence[models.Field[Any, Any]],
    rows: Sequence[Sequence[Any]],
    *,
    key: Sequence[str],
    using: str,
) -> set[Any]:
    """Insert the rows that are not there yet, in one statement, and say which they were. Belongs into a transaction.

    ``rows`` are values as the driver takes them, in the order of ``fields``. ``key`` are the
    columns of a unique constraint; the rows differ in the last of them, whose Python values are
    returned. Exact for workers that insert the same rows at once: the second waits for the first
    one's transaction, and inserts a row only if that was rolled back.
    """
    connection = connections[using]
    if connection.vendor == "mysql":
        return mysql.insert_missing(connection, model, fields, rows, key)
    quote = connection.ops.quote_name
    one = f"({', '.join(['%s'] * len(fields))})"
    sql = (
        f"INSERT INTO {quote(model._meta.db_table)} ({', '.join(quote(str(field.column)) for field in fields)}) "  # noqa: S608
        f"VALUES {', '.join([one] * len(rows))} "
        f"ON CONFLICT ({', '.join(map(quote, key))}) DO NOTHING RETURNING {quote(key[-1])}"
    )
    last = next(field for field in fields if field.column == key[-1])
    with connection.cursor() as cursor:
        cursor.execute(sql, [value for row in rows for value in row])
        return {last.to_python(value) for (value,) in cursor.fetchall()}


def first_keys(queryset: models.QuerySet[Any], number: int) -> Any:
    """The primary keys of the first rows, for ``pk__in``: a subquery where the database takes one with a LIMIT."""
    keys = queryset.values_list("pk", flat=True)[:number]
    return keys if connections[queryset.db].features.allow_sliced_subqueries_with_in else list(keys)


def take_write_lock(connection: BaseDatabaseWrapper, model: type[models.Model]) -> None:
    """The first act of a transaction that writes: sees to it that others don't make it fail.

    A transaction on SQLite that reads first and writes later fails at once with "database is
    locked" when another one wrote in between; one that writes first waits its turn. So this
    takes the write lock. On MySQL and MariaDB, it lets rows of ours be found by keys only.
    """
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(model._meta.db_table)} WHERE 0")  # noqa: S608
    elif connection.vendor == "mysql":
        mysql.find_by_keys(connection)


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
    ordered = sorted(rows, key=lambda row: [_rank(row[name]) for name in key])
    size = max(1, (connection.features.max_query_params or 30_000) // len(fields))
    for start in range(0, len(ordered), size):
        _upsert(connection, model, fields, ordered[start : start + size], key, add)


def _rank(value: Any) -> tuple[bool, Any]:
    """Numbers in the order of numbers: an index has them so, and InnoDB locks what is before a row, too."""
    is_number = isinstance(value, (int, float, Decimal))
    return (is_number, value if is_number else str(value))


def _is_written(field: models.Field[Any, Any]) -> bool:
    """Whether we give the column a value; the others get theirs from the database."""
    by_database = field.generated or (field.has_db_default() and not field.has_default())
    return not (field.primary_key or by_database)


def _given(row: Mapping[str, Any], field: models.Field[Any, Any]) -> Any:
    """What a row gives a field, by either of its names, or else the field's default."""
    for name in (field.name, field.attname):
        if name in row:
            return row[name]
    return field.get_default()


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
    values = [field.get_db_prep_save(_given(row, field), connection) for row in rows for field in fields]
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
