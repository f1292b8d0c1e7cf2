"""The ledger of message ids: what is in it is counted."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models.functions import Now

from pluginhost.db import first_keys, insert_new
from pluginhost_timeseries.models import LedgerEntry

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The columns of its unique constraint.
KEY = ("alias", "message_id")
#: Rows of one INSERT: SQLite takes 999 parameters.
ROWS = 400
#: Entries that one call of ``prune`` deletes, at most. More than the events of a batch, so that pruning keeps up.
PRUNED_AT_ONCE = 2000


def enter(alias: str, message_ids: Iterable[str], using: str) -> set[str]:
    """Enter message ids, and give those that were not in the ledger. Belongs into a transaction.

    Exact for workers that enter the same ids at the same time: the second waits
    for the first one's transaction, and gets the id only if that was rolled back.
    The ids are entered in order, so that no two workers wait for each other in a circle.
    """
    ordered = sorted(message_ids)
    new: set[str] = set()
    for start in range(0, len(ordered), ROWS):
        new |= _insert(alias, ordered[start : start + ROWS], using)
    return new


def _insert(alias: str, message_ids: list[str], using: str) -> set[str]:
    fields = [field for field in LedgerEntry._meta.concrete_fields if field.name in KEY]
    return insert_new(LedgerEntry, fields, [(alias, each) for each in message_ids], key=KEY, using=using)


def prune(days: int, using: str) -> bool:
    """Delete some entries older than ``days``. Whether there may be more of them."""
    old = LedgerEntry.objects.using(using).filter(created__lt=Now() - timedelta(days=days)).order_by("created")
    with transaction.atomic(using):
        some = first_keys(old.select_for_update(skip_locked=True), PRUNED_AT_ONCE)
        deleted, _by_model = LedgerEntry.objects.using(using).filter(pk__in=some).delete()
    return deleted == PRUNED_AT_ONCE
