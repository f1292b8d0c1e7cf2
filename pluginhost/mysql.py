"""What MySQL and MariaDB alone need: deadlocks undo a whole transaction, and who looks for rows locks others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, IntegrityError, OperationalError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django.db import models
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor

#: MySQL's error for the victim of a deadlock, whose transaction is gone (ER_LOCK_DEADLOCK).
DEADLOCK = 1213


def is_undone(connection: BaseDatabaseWrapper, error: BaseException) -> bool:
    """Whether this error has undone the open transaction; then Django lets nothing else be done in it."""
    if connection.vendor != "mysql" or not isinstance(error, DatabaseError) or error.args[:1] != (DEADLOCK,):
        return False
    if connection.in_atomic_block:
        connection.set_rollback(True)
    return True


def see_victims(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
    """A wrapper of statements: let Django know when one of them has undone the transaction."""
    try:
        return execute(sql, params, many, context)
    except DatabaseError as error:
        is_undone(context["connection"], error)
        raise


#: MySQL's error for a row whose key is there (ER_DUP_ENTRY).
DUPLICATE = 1062


def insert_missing(
    connection: BaseDatabaseWrapper,
    model: type[models.Model],
    fields: Sequence[models.Field[Any, Any]],
    rows: Sequence[Sequence[Any]],
    key: Sequence[str],
) -> set[Any]:
    """``db.insert_new`` where an INSERT passes over rows that are there only together with every other error.

    ``INSERT IGNORE`` would cut off what is too long, and store it. So look first, with a lock:
    that reads what is committed, at every isolation level. What another worker inserts after
    the look makes the INSERT wait, and fail as a whole; then look again, at one more row at least.
    """
    quote = connection.ops.quote_name
    table = quote(model._meta.db_table)
    places = [[field.column for field in fields].index(name) for name in key]
    last = fields[places[-1]]
    left = {last.to_python(row[places[-1]]): row for row in rows}
    same = [rows[0][place] for place in places[:-1]]
    conditions = "".join(f"{quote(name)} = %s AND " for name in key[:-1])
    columns = ", ".join(quote(str(field.column)) for field in fields)
    one = f"({', '.join(['%s'] * len(fields))})"
    failed: IntegrityError | None = None
    with connection.cursor() as cursor:
        while left:
            cursor.execute(
                f"SELECT {quote(key[-1])} FROM {table} WHERE {conditions}"  # noqa: S608
                f"{quote(key[-1])} IN ({', '.join(['%s'] * len(left))}) LOCK IN SHARE MODE",
                same + [row[places[-1]] for row in left.values()],
            )
            there = {last.to_python(value) for (value,) in cursor.fetchall()} & left.keys()
            if failed and not there:  # another constraint, or texts that only the database takes for equal
                raise failed
            left = {value: row for value, row in left.items() if value not in there}
            if not left:
                break
            try:
                cursor.execute(
                    f"INSERT INTO {table} ({columns}) VALUES {', '.join([one] * len(left))}",  # noqa: S608
                    [value for row in left.values() for value in row],
                )
                break
            except IntegrityError as error:
                if error.args[0] != DUPLICATE:
                    raise
                failed = error
    return set(left)


def compare_exactly(schema_editor: BaseDatabaseSchemaEditor, model: type[models.Model], *names: str) -> None:
    """In a migration: on MySQL and MariaDB, give text columns a collation that takes only equal texts for equal.

    Their usual ones take ``a``, ``A``, ``á`` and ``a`` with a space behind it for the same. Other databases don't.
    """
    connection: Any = schema_editor.connection
    if connection.vendor != "mysql":
        return
    if connection.mysql_is_mariadb:
        collation = "utf8mb4_nopad_bin"
    else:
        collation = "utf8mb4_0900_bin" if connection.mysql_version >= (8, 0, 17) else "utf8mb4_bin"
    changes = []
    for name in names:
        field: Any = model._meta.get_field(name)
        column = f"{connection.ops.quote_name(field.column)} {field.db_type(connection)}"
        changes.append(
            f"MODIFY {column} CHARACTER SET utf8mb4 COLLATE {collation} {'NULL' if field.null else 'NOT NULL'}"
        )
    schema_editor.execute(f"ALTER TABLE {connection.ops.quote_name(model._meta.db_table)} {', '.join(changes)}")


#: An UPDATE or DELETE of a table of ours.
OURS = re.compile(r"(UPDATE|DELETE FROM) `pluginhost")
#: A SELECT that waits for locks on rows of ours, by their ids.
LOCKED_BY_ID = re.compile(r"^(SELECT .* FROM (`pluginhost_\w+`)) (WHERE .*\2\.`id` IN .* FOR UPDATE)$", re.DOTALL)
#: MySQL's error for an UPDATE or DELETE that no key helps (ER_UPDATE_WITHOUT_KEY_IN_SAFE_MODE).
NO_KEY = 1175


def find_by_keys(connection: BaseDatabaseWrapper) -> None:
    """From now on, let rows of ours be found by keys only on this connection."""
    if _by_keys not in connection.execute_wrappers:
        connection.execute_wrappers.insert(0, _by_keys)  # whoever appends one takes the last away


def _by_keys(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
    """Let an UPDATE or DELETE of ours go by an index, if it can.

    The optimizer of MySQL and MariaDB reads a small table, or a large part of one, from end to end,
    though it is given ids. InnoDB then locks rows of other workers on the way, or waits for them,
    and two who do so wait for each other. "Safe updates" forbid to read from end to end.
    """
    if not isinstance(sql, str):
        return execute(sql, params, many, context)
    if not OURS.match(sql):
        return execute(LOCKED_BY_ID.sub(r"\1 FORCE INDEX (PRIMARY) \3", sql), params, many, context)
    if context["connection"].mysql_is_mariadb:
        safe = f"SET STATEMENT sql_safe_updates=1 FOR {sql}"
    else:
        verb, rest = sql.split(" ", 1)
        safe = f"{verb} /*+ SET_VAR(sql_safe_updates=1) */ {rest}"
    try:
        return execute(safe, params, many, context)
    except OperationalError as error:
        if error.args[0] != NO_KEY:
            raise
        return execute(sql, params, many, context)
