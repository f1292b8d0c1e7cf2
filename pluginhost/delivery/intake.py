"""From envelopes to chunks: what a worker does first, so that lanes read few large rows, each in its own time."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from django.db import connections, transaction
from django.db.models.functions import Length

from pluginhost.db import skip_locked, take_write_lock
from pluginhost.delivery import accounts
from pluginhost.delivery.ceiling import Ceiling
from pluginhost.delivery.envelopes import MAX_BYTES, MAX_EVENTS, VERSION, is_sound, merge
from pluginhost.models import Chunk, Delivery, Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

#: Envelopes that one transaction takes, at most, and their bytes.
TAKE = 500
TAKE_BYTES = 8 * MAX_BYTES
MAX_ALIAS = 63


class Row(NamedTuple):
    """What is needed of an envelope."""

    version: int
    lanes: str
    n: int
    created: datetime
    payload: bytes


def take(using: str) -> int:
    """Turn waiting envelopes into chunks and deliveries, in one transaction. Returns how many envelopes.

    Envelopes of a newer version than this code knows stay for the workers that know it.
    """
    readable = Envelope.objects.using(using).filter(version__lte=VERSION)
    if not readable.exists():  # an idle worker takes no locks
        return 0
    connection = connections[using]
    with transaction.atomic(using):
        take_write_lock(connection, Envelope)
        sizes = (
            readable.order_by("id")
            .select_for_update(skip_locked=skip_locked(connection))
            .values_list("id", Length("payload"))
        )
        ids = list(_within_bytes(sizes[:TAKE]))
        chosen = Envelope.objects.using(using).filter(id__in=ids)
        found = chosen.order_by("id").values_list("version", "lanes", "n", "created", "payload")
        rows = [Row(version, lanes, n, created, bytes(payload)) for version, lanes, n, created, payload in found]
        chosen.delete()
        _store(rows, using)
    return len(rows)


def _within_bytes(sizes: Iterable[tuple[int, int]]) -> Iterator[int]:
    total = 0
    for id_, size in sizes:
        if total and total + size > TAKE_BYTES:
            return
        total += size
        yield id_


def _store(rows: Sequence[Row], using: str) -> None:
    rows = [row._replace(lanes=_storable(row.lanes)) for row in rows]
    ceiling = Ceiling.of({lane for row in rows for lane in row.lanes.split(",")}, using)
    groups = defaultdict(list)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        for lane in row.lanes.split(","):
            counts[lane, "accepted"] += row.n
        for share in ceiling.share(row):
            groups[share.version, share.lanes].append(share)
    deliveries = []
    for (version, names), group in groups.items():
        for chunk in _chunks(group):
            chunk.save(using=using, force_insert=True)
            deliveries += [
                Delivery(lane=lane, chunk=chunk, version=version, n=chunk.n, created=chunk.created)
                for lane in names.split(",")
            ]
    Delivery.objects.using(using).bulk_create(deliveries)
    counts.update({(lane, "discarded"): n for lane, n in ceiling.discarded.items()})
    accounts.add(counts, using)
    transaction.on_commit(ceiling.tell, using=using, robust=True)


def _storable(names: str) -> str:
    """The lanes of an envelope, as long as a delivery can name them."""
    return ",".join(name[:MAX_ALIAS] for name in names.split(","))


def _chunks(rows: Sequence[Row]) -> Iterator[Chunk]:
    """Merge envelopes of equal lanes, in their order, up to 500 events or 1 MiB. A chunk is as old as its oldest."""
    number, n, size = 0, 0, 0
    numbered = []
    for row in rows:
        sound = is_sound(row.payload, row.n)
        if n and (not sound or n + row.n > MAX_EVENTS or size + len(row.payload) > MAX_BYTES):
            number, n, size = number + 1, 0, 0
        n, size = n + row.n, size + len(row.payload)
        numbered.append((number, row))
        if not sound:  # a chunk of its own: it is dead, and takes no others with it
            number, n, size = number + 1, 0, 0
    for _, group in groupby(numbered, key=lambda pair: pair[0]):
        members = [row for _, row in group]
        payload = members[0].payload if len(members) == 1 else merge(row.payload for row in members)
        yield Chunk(n=sum(row.n for row in members), payload=payload, created=min(row.created for row in members))
