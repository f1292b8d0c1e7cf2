"""From envelopes to chunks: what a worker does first, so that lanes read few large rows, each in its own time."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connections, transaction

from pluginhost.db import take_write_lock
from pluginhost.delivery import accounts
from pluginhost.delivery.ceiling import Ceiling
from pluginhost.delivery.envelopes import MAX_BYTES, MAX_EVENTS, VERSION, is_sound, merge
from pluginhost.delivery.sql import execute, insert, select
from pluginhost.models import Delivery, Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: Envelopes that one transaction takes, at most, and their bytes.
TAKE = 1000
TAKE_BYTES = 8 * MAX_BYTES
MAX_ALIAS = 63


#: By the key: what was taken lately may still be in the way elsewhere.
ANYTHING = 'SELECT id FROM "pluginhost_envelope" WHERE version <= %s ORDER BY id LIMIT 1'
SIZES = 'SELECT id, LENGTH(payload) FROM "pluginhost_envelope" WHERE version <= %s ORDER BY id LIMIT %s {locked}'
#: The times go back as they came: of an expression, SQLite's driver makes nothing else than text.
READ = """
    SELECT id, version, lanes, n, COALESCE(created, created), payload
    FROM "pluginhost_envelope" WHERE "id" IN {ids} ORDER BY id
"""
#: What tells whether any of them has changed: people take events out of envelopes, and give them other lanes.
STATES = 'SELECT id, lanes, n, LENGTH(payload) FROM "pluginhost_envelope" WHERE "id" IN {ids} ORDER BY id'
REMOVE = 'DELETE FROM "pluginhost_envelope" WHERE "id" IN {ids}'
CHUNK = 'INSERT INTO "pluginhost_chunk" (n, created, payload) VALUES (%s, %s, %s)'
DELIVERIES = """
    INSERT INTO "pluginhost_delivery"
    (lane, chunk_id, version, n, created, due_at, done, attempts, kills, state, reason, message_id, event_name) VALUES
"""
DELIVERY = "(%s, %s, %s, %s, %s, {now}, 0, 0, 0, %s, '', '', '')"


class Row(NamedTuple):
    """What is needed of an envelope."""

    id: int
    version: int
    lanes: str
    n: int
    created: Any
    """As the database's driver says it."""
    payload: bytes
    sound: bool
    """Whether it can be merged with others."""


def take(using: str) -> int:
    """Turn waiting envelopes into chunks and deliveries, in one transaction. Returns how many envelopes.

    Envelopes of a newer version than this code knows stay for the workers that know it.
    """
    if not select(using, ANYTHING, [VERSION]):  # an idle worker takes no locks
        return 0
    connection = connections[using]
    if connection.features.has_select_for_update:
        with transaction.atomic(using):
            take_write_lock(connection, Envelope)
            if rows := _read(using):
                _move(rows, using)
        return len(rows)
    # SQLite has one lock, and requests wait for it: what needs no lock is done before it is taken.
    while rows := _read(using):
        with transaction.atomic(using):
            take_write_lock(connection, Envelope)
            if _are_unchanged(rows, using):
                _move(rows, using)
                return len(rows)
    return 0


def _read(using: str) -> list[Row]:
    """The next envelopes. They are then locked, if rows can be; those that others have locked are passed over."""
    ids = list(_within_bytes(select(using, SIZES, [VERSION, TAKE])))
    found = select(using, READ, ids=ids, binary=True) if ids else []
    return [
        Row(id_, version, lanes, n, created, raw := bytes(payload), is_sound(raw, n))
        for id_, version, lanes, n, created, payload in found
    ]


def _are_unchanged(rows: Sequence[Row], using: str) -> bool:
    """Whether the envelopes are still there, as they were read."""
    now = select(using, STATES, ids=[row.id for row in rows])
    return now == [(row.id, row.lanes, row.n, len(row.payload)) for row in rows]


def _within_bytes(sizes: Iterable[tuple[int, int]]) -> Iterator[int]:
    total = 0
    for id_, size in sizes:
        if total and total + size > TAKE_BYTES:
            return
        total += size
        yield id_


def _move(rows: Sequence[Row], using: str) -> None:
    """Write chunks and deliveries in place of these envelopes."""
    execute(using, REMOVE, ids=[row.id for row in rows])
    if any(_storable(names) != names for names in {row.lanes for row in rows}):
        rows = [row._replace(lanes=_storable(row.lanes)) for row in rows]
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for names, n in _events_by_lanes(rows).items():
        for lane in names.split(","):
            counts[lane, "accepted"] += n
    ceiling = Ceiling.of({lane for lane, _ in counts}, using)
    groups = defaultdict(list)
    for share in ceiling.shares(rows):
        groups[share.version, share.lanes].append(share)
    for (version, names), group in groups.items():
        for members in _chunks(group):
            _write(members, version, names.split(","), using)
    counts.update({(lane, "discarded"): n for lane, n in ceiling.discarded.items()})
    accounts.add(counts, using)
    transaction.on_commit(ceiling.tell, using=using, robust=True)


def _events_by_lanes(rows: Iterable[Row]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for row in rows:
        found[row.lanes] += row.n
    return found


def _write(members: Sequence[Row], version: int, lanes: Sequence[str], using: str) -> None:
    """Write one chunk of these envelopes, and a delivery a lane. They are as old as the oldest of them."""
    created = min(row.created for row in members)
    n = sum(row.n for row in members)
    payload = members[0].payload if len(members) == 1 else merge(row.payload for row in members)
    chunk = insert(using, CHUNK, [n, created, payload])
    values = [value for lane in lanes for value in (lane, chunk, version, n, created, Delivery.State.WAITING)]
    execute(using, DELIVERIES + ", ".join([DELIVERY] * len(lanes)), values)


def _storable(names: str) -> str:
    """The lanes of an envelope, as long as a delivery can name them."""
    return ",".join(name[:MAX_ALIAS] for name in names.split(","))


def _chunks(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The envelopes of each chunk: those of equal lanes, in their order, up to 500 events or 1 MiB."""
    members: list[Row] = []
    n, size = 0, 0
    for row in rows:
        if members and (not row.sound or n + row.n > MAX_EVENTS or size + len(row.payload) > MAX_BYTES):
            yield members
            members, n, size = [], 0, 0
        members.append(row)
        n, size = n + row.n, size + len(row.payload)
        if not row.sound:  # a chunk of its own: it is dead, and takes no others with it
            yield members
            members, n, size = [], 0, 0
    if members:
        yield members
