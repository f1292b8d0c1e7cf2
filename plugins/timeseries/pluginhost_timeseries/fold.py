"""Writes a plan: each event once, one upsert a table and transaction."""

from __future__ import annotations

from collections import defaultdict
from decimal import localcontext
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.db.models import F, Q

from pluginhost import PermanentError
from pluginhost.db import add_up, take_write_lock
from pluginhost_timeseries import ledger
from pluginhost_timeseries.counters import counter_fields, limit
from pluginhost_timeseries.models import LedgerEntry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db import models

    from pluginhost_timeseries.models import EventCount, TrackableData
    from pluginhost_timeseries.plan import Plan, Share

    Model = type[EventCount | TrackableData]
    Sums = dict[tuple[Any, ...], dict[str, Any]]

#: More digits than any decimal column has: sums of decimals are exact.
PRECISION = 1000
#: Rows that are looked at in one query: SQLite takes 999 parameters, and a row's key has up to four.
ROWS = 200
#: Events of one transaction where others wait for its end: SQLite has one lock, MySQL and MariaDB lock more than rows.
TOGETHER = 1000


def fold(plan: Plan, alias: str, using: str, *, repeated: bool = True) -> None:
    """Count the events of ``plan`` that are not in the ledger, and enter them, in one transaction on PostgreSQL.

    Elsewhere in one for each thousand: what was committed before another fails is in the
    ledger, and adds nothing when it comes again. ``repeated`` says whether any of the
    events may have been delivered before.

    Raises ``PermanentError`` for a sum that a column cannot hold, and what the
    database raises. Every worker writes tables in the same order and rows in the
    order of their keys, so that no two wait for each other in a circle.
    """
    message_ids = sorted(plan.shares)
    together = len(message_ids) if connections[using].vendor == "postgresql" else TOGETHER
    for start in range(0, len(message_ids), together):
        some = message_ids[start : start + together]
        _fold({each: plan.shares[each] for each in some}, alias, using, repeated=repeated)


def _fold(shares: dict[str, list[Share]], alias: str, using: str, *, repeated: bool) -> None:
    """All of them or none."""
    with transaction.atomic(using):
        take_write_lock(connections[using], LedgerEntry)
        new = ledger.enter(alias, shares, using, repeated=repeated)
        sums = add_together(share for message_id in sorted(new) for share in shares[message_id])
        for model in sorted(sums, key=lambda each: each._meta.label):
            _write(model, sums[model], using)


def add_together(shares: Iterable[Share]) -> dict[Model, Sums]:
    """Sums by table, row and field."""
    sums: dict[Model, Sums] = defaultdict(lambda: defaultdict(dict))
    with localcontext(prec=PRECISION):
        for model, key, amounts in shares:
            row = sums[model][key]
            for name, added in amounts.items():
                row[name] = row.get(name, 0) + added
    return sums


def _write(model: Model, sums: Sums, using: str) -> None:
    """Add sums to rows of one table.

    A CHECK constraint judges a proposed row even if the row exists already, so a
    positive integer column refuses an upsert of -1. Therefore the upsert adds what
    is positive; it makes and locks every row on the way. The rest is subtracted
    from rows that are then ours.
    """
    fields = {name: field for name, field in counter_fields(model).items() if any(name in row for row in sums.values())}
    for name, field in fields.items():
        most = limit(field)
        if any(abs(row.get(name, 0)) > most for row in sums.values()):
            raise PermanentError(f"the sum of the batch is too large for {field}")
    begin: dict[str, Any] = dict.fromkeys(counter_fields(model), 0)
    rows = [
        {**begin, **_key(model, key), **{name: max(added, 0) for name, added in row.items()}}
        for key, row in sums.items()
    ]
    add_up(model, rows, key=model.counted_by, add=list(fields), using=using)
    for key, row in sums.items():
        if subtracted := {name: F(name) + added for name, added in row.items() if added < 0}:
            _row(model, key, using).update(**subtracted)
    if connections[using].vendor != "postgresql":
        _refuse_outgrown(model, list(fields), list(sums), using)


def _row(model: Model, key: tuple[Any, ...], using: str) -> models.QuerySet[Any]:
    """The row of this key, which is ours, found in a way that locks no other.

    MySQL and MariaDB may look for it in an index that others share, and lock what they pass: ask by primary key.
    """
    row = model._base_manager.using(using).filter(**_key(model, key))
    if connections[using].vendor != "mysql":
        return row
    return model._base_manager.using(using).filter(pk=row.values_list("pk", flat=True).get())


def _key(model: Model, key: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(model.counted_by, key, strict=True))


def _refuse_outgrown(model: Model, names: list[str], keys: list[tuple[Any, ...]], using: str) -> None:
    """Raise ``PermanentError`` if a sum has outgrown its column.

    SQLite knows no limit below 64 bits, and goes on with a float beyond them. MySQL and
    MariaDB have twice the range for positive integers.
    """
    fields = counter_fields(model)
    outgrown = Q()
    for name in names:
        outgrown |= Q(**{f"{name}__gt": limit(fields[name])}) | Q(**{f"{name}__lt": -limit(fields[name])})
    for start in range(0, len(keys), ROWS):
        columns = zip(model.counted_by, zip(*keys[start : start + ROWS], strict=True), strict=True)
        written = {f"{name}__in": set(values) for name, values in columns}
        if model._base_manager.using(using).filter(outgrown, **written).exists():
            raise PermanentError(f"the sum is too large for a counter of {model._meta.label}")
