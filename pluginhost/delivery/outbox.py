"""The transport that loses nothing: one INSERT, in the view's own transaction if it has one.

The database then forgets what is rolled back. The INSERT must never harm the
site's own work: where a failed statement dooms the transaction it runs in a
savepoint, and what failed is tried again after the commit.
"""

from __future__ import annotations

import logging
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, ClassVar

from django.db import connections, transaction

from pluginhost import counts
from pluginhost.conf import get_settings
from pluginhost.db import in_transaction
from pluginhost.delivery.envelopes import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.utils import CursorWrapper

    from pluginhost.delivery.envelopes import Envelope

logger = logging.getLogger("pluginhost.outbox")

_COLUMNS = ("envelope_id", "version", "lanes", "n", "payload")


class Outbox:
    uses_database: ClassVar[bool] = True

    def put(self, envelopes: Sequence[Envelope], using: str) -> bool:
        connection = connections[using]
        inside = in_transaction(using)
        try:
            _insert(connection, envelopes, inside=inside)
        except Exception as error:
            return _again_later(connection, envelopes, error) if inside else _again_now(connection, envelopes, error)
        _wake(using)
        return True


def _insert(connection: BaseDatabaseWrapper, envelopes: Sequence[Envelope], *, inside: bool) -> None:
    values = _values(connection, envelopes)
    if not (inside and connection.vendor == "postgresql"):  # elsewhere a failed statement dooms no transaction
        with connection.cursor() as cursor:
            cursor.execute(_sql(connection, len(envelopes)), values)
    elif connection.settings_dict["OPTIONS"].get("server_side_binding"):
        # The server binds the arguments of one statement at a time.
        with transaction.atomic(connection.alias), connection.cursor() as cursor:
            cursor.execute(_sql(connection, len(envelopes)), values)
    else:
        _insert_in_savepoint(connection, _sql(connection, len(envelopes)), values)


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


@lru_cache(maxsize=64)
def _statement(table: str, columns: tuple[str, ...], rows: int, *, ignore: bool, verb: str) -> str:
    one = f"({', '.join(['%s'] * len(columns))})"
    tail = " ON CONFLICT DO NOTHING" if ignore else ""
    return f"{verb} INTO {table} ({', '.join(columns)}) VALUES {', '.join([one] * rows)}{tail}"


def _sql(connection: BaseDatabaseWrapper, rows: int, *, ignore: bool = False) -> str:
    from pluginhost.models import Envelope as Row

    quote = connection.ops.quote_name
    mysql = connection.vendor == "mysql"
    return _statement(
        quote(Row._meta.db_table),
        tuple(quote(column) for column in _COLUMNS),
        rows,
        ignore=ignore and not mysql,
        verb="INSERT IGNORE" if ignore and mysql else "INSERT",
    )


def _values(connection: BaseDatabaseWrapper, envelopes: Sequence[Envelope]) -> list[Any]:
    native = connection.features.has_native_uuid_field
    values: list[Any] = []
    for envelope in envelopes:
        identity = envelope.envelope_id if native else envelope.envelope_id.hex
        values += [identity, VERSION, ",".join(envelope.lanes), envelope.n, envelope.payload]
    return values


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
    with connection.cursor() as cursor:
        cursor.execute(_sql(connection, len(envelopes), ignore=True), _values(connection, envelopes))


def _describe(envelopes: Sequence[Envelope]) -> str:
    return f"{sum(envelope.n for envelope in envelopes)} events"


def _wake(using: str) -> None:
    """In development, a thread of this process empties the outbox; it starts at the first event."""
    if get_settings().WORKER == "thread":
        from pluginhost.delivery.worker import ensure_thread

        ensure_thread(using)


transport = Outbox()
