"""The transport that loses nothing: one INSERT, in the view's own transaction if it has one.

The database then forgets what is rolled back. The INSERT must never harm the
site's own work: where a failed statement dooms the transaction it runs in a
savepoint, and what failed is tried again after the commit.
"""

from __future__ import annotations

import logging
from functools import cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from django.db import connections, transaction

from pluginhost import counts
from pluginhost.conf import get_settings
from pluginhost.db import is_open
from pluginhost.delivery.envelopes import MAX_BYTES, VERSION
from pluginhost.mysql import is_undone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.utils import CursorWrapper

    from pluginhost.delivery.envelopes import Envelope

logger = logging.getLogger("pluginhost.outbox")

_COLUMNS = ("envelope_id", "version", "lanes", "n", "payload")


class Row(NamedTuple):
    """What is stored of an envelope: the values of the columns."""

    envelope_id: str
    version: int
    lanes: str
    n: int
    payload: bytes


class Outbox:
    uses_database: ClassVar[bool] = True

    def put(self, envelopes: Sequence[Envelope], using: str, *, ignore: bool = False) -> bool:
        connection = connections[using]
        inside = is_open(connection)
        try:
            _insert(connection, _rows(envelopes), inside=inside, ignore=ignore)
        except Exception as error:
            if inside and is_undone(connection, error):
                logger.error("the server undid the site's transaction, and with it %s: %s", _describe(envelopes), error)
                return False
            return _again_later(connection, envelopes, error) if inside else _again_now(connection, envelopes, error)
        _wake(using)
        return True

    def spill(self, envelopes: Sequence[Envelope], using: str) -> bool:
        """The same for envelopes that a broker may have too: one that is there already is not stored again."""
        return self.put(envelopes, using, ignore=True)

    def store(self, row: Row, using: str) -> None:
        """Store what the broker carried, unless it is there already. Raises what the database does."""
        connection = connections[using]
        _insert(connection, [row], inside=is_open(connection), ignore=True)
        _wake(using)


def _rows(envelopes: Sequence[Envelope]) -> list[Row]:
    return [Row(each.envelope_id, VERSION, ",".join(each.lanes), each.n, each.payload) for each in envelopes]


def _insert(connection: BaseDatabaseWrapper, rows: Sequence[Row], *, inside: bool, ignore: bool) -> None:
    if not (inside and connection.vendor == "postgresql"):  # elsewhere a failed statement dooms no transaction
        for part in _parts(rows) if connection.vendor == "mysql" else (rows,):
            _execute(connection, _sql(connection, len(part), ignore=ignore), _values(part))
        return
    sql = _sql(connection, len(rows), ignore=ignore)
    values = _values(rows)
    if connection.settings_dict["OPTIONS"].get("server_side_binding"):
        # The server binds the arguments of one statement at a time.
        with transaction.atomic(connection.alias), connection.cursor() as cursor:
            cursor.execute(sql, values)
    else:
        _insert_in_savepoint(connection, sql, values)


def _execute(connection: BaseDatabaseWrapper, sql: str, values: Sequence[Any]) -> None:
    """Run a statement; on SQLite without Django's cursor, which takes twice as long as the INSERT."""
    driver = _plain_sqlite(connection) if connection.vendor == "sqlite" else None
    if driver is None:
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
        return
    try:
        driver.execute(sql.replace("%s", "?"), values)
    except Exception:
        with connection.wrap_database_errors:
            raise


def _plain_sqlite(connection: Any) -> Any:
    """The driver's connection; None if somebody watches or replaces what runs on it, or if Django would refuse it."""
    create_cursor, driver = _django_s_own()
    if (
        connection.execute_wrappers
        or connection.queries_logged
        or connection.needs_rollback
        or "cursor" in vars(connection)  # tests that may not use this database, a toolbar
        or type(connection).create_cursor is not create_cursor
    ):
        return None
    connection.ensure_connection()
    return connection.connection if type(connection.connection) is driver else None


@cache
def _django_s_own() -> tuple[Any, type[Any]]:
    """How Django's own backend for SQLite makes cursors, and the class of its driver's connections."""
    from sqlite3 import Connection  # neither is imported on a site that does not use SQLite

    from django.db.backends.sqlite3.base import DatabaseWrapper

    return DatabaseWrapper.create_cursor, Connection


def _values(rows: Sequence[Row]) -> list[Any]:
    return [*chain.from_iterable(rows)]


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """What goes into a statement: MySQL and MariaDB end a connection that sends them too long a one."""
    part: list[Row] = []
    for row in rows:
        if part and sum(len(each.payload) for each in (*part, row)) > MAX_BYTES:
            yield part
            part = []
        part.append(row)
    yield part


def _insert_in_savepoint(connection: BaseDatabaseWrapper, sql: str, values: Sequence[Any]) -> None:
    """``SAVEPOINT; INSERT; RELEASE`` in one round trip."""
    with connection.cursor() as cursor:
        try:
            cursor.execute(f"SAVEPOINT pluginhost; {sql}; RELEASE SAVEPOINT pluginhost", values)
        except Exception:
            # What failed before it reached the server made no savepoint, and to roll back to none dooms as well.
            if _in_error(connection):
                _roll_back(cursor)
            raise


def _in_error(connection: BaseDatabaseWrapper) -> bool:
    """Whether the server waits for a rollback (libpq's PQTRANS_INERROR)."""
    return connection.connection is not None and int(connection.connection.info.transaction_status) == 3


def _roll_back(cursor: CursorWrapper) -> None:
    try:
        cursor.execute("ROLLBACK TO SAVEPOINT pluginhost; RELEASE SAVEPOINT pluginhost")
    except Exception:  # there is no such savepoint: the transaction was doomed before we came
        logger.debug("the transaction was broken before an event was tracked", exc_info=True)


#: Vendor, number of rows and ``ignore`` -> statement.
_statements: dict[tuple[str, int, bool], str] = {}
MAX_REMEMBERED = 64


def _sql(connection: BaseDatabaseWrapper, rows: int, *, ignore: bool) -> str:
    """The statement that inserts so many rows. ``ignore``: an envelope that is there already stays as it is."""
    key = (connection.vendor, rows, ignore)
    statement = _statements.get(key)
    if statement is None:
        statement = _statement(connection, rows, ignore=ignore)
        if len(_statements) < MAX_REMEMBERED:
            _statements[key] = statement
    return statement


def _statement(connection: BaseDatabaseWrapper, rows: int, *, ignore: bool) -> str:
    from pluginhost.models import Envelope as Model

    quote = connection.ops.quote_name
    columns = tuple(quote(column) for column in _COLUMNS)
    tail = ""
    if ignore and connection.vendor == "mysql":  # INSERT IGNORE would forgive more than that
        tail = f" ON DUPLICATE KEY UPDATE {columns[0]} = {columns[0]}"
    elif ignore:
        tail = " ON CONFLICT DO NOTHING"
    one = f"({', '.join(['%s'] * len(columns))})"
    table = quote(Model._meta.db_table)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([one] * rows)}{tail}"  # noqa: S608


def _again_later(connection: BaseDatabaseWrapper, envelopes: Sequence[Envelope], error: Exception) -> bool:
    """Try again after the commit. True if that will happen, unless the transaction rolls back."""
    logger.error("the outbox refused %s; tried again after the commit: %s", _describe(envelopes), error)
    try:
        transaction.on_commit(partial(_last_try, connection.alias, envelopes), using=connection.alias, robust=True)
    except Exception:  # autocommit is off, or the transaction is broken
        logger.exception("the outbox lost %s", _describe(envelopes))
        return False
    return True


def _again_now(connection: BaseDatabaseWrapper, envelopes: Sequence[Envelope], error: Exception) -> bool:
    """Try again at once if the connection had gone stale; an insert that did arrive is not repeated."""
    logger.error("the outbox refused %s: %s", _describe(envelopes), error)
    try:
        # A connection that works is the site's: it may hold a cursor, a lock, a temporary table.
        if connection.connection is None or connection.is_usable():
            return False
        connection.close()
        _insert_ignoring(connection, envelopes)
    except Exception:
        logger.exception("the outbox lost %s", _describe(envelopes))
        return False
    return True


def _last_try(using: str, envelopes: Sequence[Envelope]) -> None:
    try:
        _insert_ignoring(connections[using], envelopes)
    except Exception:
        counts.count("lost", sum(envelope.n for envelope in envelopes))
        logger.exception("the outbox lost %s", _describe(envelopes))
    else:
        _wake(using)


def _insert_ignoring(connection: BaseDatabaseWrapper, envelopes: Sequence[Envelope]) -> None:
    _insert(connection, _rows(envelopes), inside=False, ignore=True)


def _describe(envelopes: Sequence[Envelope]) -> str:
    return f"{sum(envelope.n for envelope in envelopes)} events"


def _wake(using: str) -> None:
    """In development, a thread of this process empties the outbox; it starts at the first event."""
    if get_settings().WORKER == "thread":
        from pluginhost.workers.worker import ensure_thread

        ensure_thread(using)


transport = Outbox()
