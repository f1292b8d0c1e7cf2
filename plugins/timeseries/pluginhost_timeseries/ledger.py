"""The ledger of message ids: what is in it is counted."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import connections, transaction
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
#: Entries that one call of ``prune`` deletes, at most. More than the events of a batch, so that pruning keeps up.
PRUNED_AT_ONCE = 2000


def enter(alias: str, message_ids: Iterable[str], using: str) -> set[str]:
    """Enter message ids, and give those that were not in the ledger. Belongs into a transaction.

    Exact for workers that enter the same ids at the same time: the second waits
    for the first one's transaction, and gets the id only if that was rolled back.
    The ids are entered in order, so that no two workers wait for each other in a circle.
    """
    ordered = sorted(message_ids)
    connection = connections[using]
    if connection.vendor in TEXTS and connection.features.supports_json_field:
        return _insert_texts(alias, ordered, connection)
    fields = [field for field in LedgerEntry._meta.concrete_fields if field.name in KEY]
    new: set[str] = set()
    for start in range(0, len(ordered), ROWS):
        rows = [(alias, each) for each in ordered[start : start + ROWS]]
        new |= insert_new(LedgerEntry, fields, rows, key=KEY, using=using)
    return new


def _insert_texts(alias: str, message_ids: list[str], connection: BaseDatabaseWrapper) -> set[str]:
    columns = ", ".join(map(connection.ops.quote_name, KEY))
    sql = (
        f"INSERT INTO {connection.ops.quote_name(LedgerEntry._meta.db_table)} ({columns}) "  # noqa: S608
        f"SELECT %s, value FROM {TEXTS[connection.vendor]} WHERE true "
        f"ON CONFLICT ({columns}) DO NOTHING RETURNING {connection.ops.quote_name(KEY[-1])}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [alias, json.dumps(message_ids)])
        return {message_id for (message_id,) in cursor.fetchall()}


def prune(days: int, using: str) -> bool:
    """Delete some entries older than ``days``. Whether there may be more of them."""
    old = LedgerEntry.objects.using(using).filter(created__lt=Now() - timedelta(days=days)).order_by("created")
    with transaction.atomic(using):
        some = first_keys(old.select_for_update(skip_locked=True), PRUNED_AT_ONCE)
        deleted, _by_model = LedgerEntry.objects.using(using).filter(pk__in=some).delete()
    return deleted == PRUNED_AT_ONCE
