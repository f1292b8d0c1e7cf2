"""The ledger of message ids: what is in it is counted."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import IntegrityError, connections, transaction
from django.db.models.functions import Now

from pluginhost.db import first_keys, insert_new
from pluginhost_timeseries.models import LedgerEntry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.backends.base.base import BaseDatabaseWrapper

#: The columns of its unique constraint.
KEY = ("alias", "message_id")
#: Rows of one INSERT where each has parameters of its own: SQLite takes 999.
ROWS = 400
#: What makes rows of a JSON array of texts: one parameter, which is read several times faster than one a text.
TEXTS = {"postgresql": "json_array_elements_text(%s)", "sqlite": "json_each(%s)"}
#: The version of a UUID with random digits, where UUIDs have it: two events never have one, while one of a key says
#: that they are the same (RFC 9562, 5.5 and 5.7).
RANDOM = "7"
#: Entries that one call of ``prune`` deletes, at most. More than the events of a batch, so that pruning keeps up.
PRUNED_AT_ONCE = 10_000


def enter(alias: str, message_ids: Iterable[str], using: str, *, repeated: bool = True) -> set[str]:
    """Enter message ids, and give those that were not in the ledger. Belongs into a transaction.

    Exact for workers that enter the same ids at the same time: the second waits
    for the first one's transaction, and gets the id only if that was rolled back.
    The ids are entered in order, so that no two workers wait for each other in a circle.

    ``repeated`` says whether the events may have been delivered before. If not, those
    with an id of their own are entered without asking for each whether it is there,
    which takes half the time; if one is there nevertheless, all are asked for.
    """
    connection = connections[using]
    if connection.vendor not in TEXTS or not connection.features.supports_json_field:
        return _insert_rows(alias, sorted(message_ids), using)
    own: list[str] = []
    keyed: list[str] = []
    for each in sorted(message_ids):
        (own if each[14:15] == RANDOM else keyed).append(each)
    if not own:
        return _insert_texts(alias, keyed, connection)
    all_are_new = not repeated and _insert_all(alias, own, connection)
    new = set(own) if all_are_new else _insert_texts(alias, own, connection)
    return new | _insert_texts(alias, keyed, connection) if keyed else new


def _insert_rows(alias: str, message_ids: list[str], using: str) -> set[str]:
    fields = [field for field in LedgerEntry._meta.concrete_fields if field.name in KEY]
    new: set[str] = set()
    for start in range(0, len(message_ids), ROWS):
        rows = [(alias, each) for each in message_ids[start : start + ROWS]]
        new |= insert_new(LedgerEntry, fields, rows, key=KEY, using=using)
    return new


def _insert(connection: BaseDatabaseWrapper) -> str:
    columns = ", ".join(map(connection.ops.quote_name, KEY))
    table = connection.ops.quote_name(LedgerEntry._meta.db_table)
    return f"INSERT INTO {table} ({columns}) SELECT %s, value FROM {TEXTS[connection.vendor]} WHERE true"  # noqa: S608


def _insert_all(alias: str, message_ids: list[str], connection: BaseDatabaseWrapper) -> bool:
    """Whether none of them was there. If one was, nothing has been entered."""
    try:
        with transaction.atomic(connection.alias), connection.cursor() as cursor:
            cursor.execute(_insert(connection), [alias, json.dumps(message_ids)])
    except IntegrityError:
        return False
    return True


def _insert_texts(alias: str, message_ids: list[str], connection: BaseDatabaseWrapper) -> set[str]:
    """Enter those that are not there, and give them."""
    columns = ", ".join(map(connection.ops.quote_name, KEY))
    returned = connection.ops.quote_name(KEY[-1])
    with connection.cursor() as cursor:
        cursor.execute(
            f"{_insert(connection)} ON CONFLICT ({columns}) DO NOTHING RETURNING {returned}",
            [alias, json.dumps(message_ids)],
        )
        return {message_id for (message_id,) in cursor.fetchall()}


def prune(days: int, using: str) -> bool:
    """Delete some entries older than ``days``. Whether there may be more of them."""
    old = LedgerEntry.objects.using(using).filter(created__lt=Now() - timedelta(days=days)).order_by("created")
    with transaction.atomic(using):
        some = first_keys(old.select_for_update(skip_locked=True), PRUNED_AT_ONCE)
        deleted, _by_model = LedgerEntry.objects.using(using).filter(pk__in=some).delete()
    return deleted == PRUNED_AT_ONCE
