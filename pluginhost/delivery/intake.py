"""From envelopes to chunks: what a worker does first, so that lanes read few large rows, each in its own time."""

from __future__ import annotations

from collections import defaultdict
from contextlib import closing
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connections, transaction

from pluginhost.db import take_write_lock
from pluginhost.delivery import accounts
from pluginhost.delivery.ceiling import Ceiling
from pluginhost.delivery.envelopes import MAX_BYTES, MAX_EVENTS, VERSION, is_sound, merge
from pluginhost.delivery.sql import execute, insert, select, stream
from pluginhost.models import Delivery, Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

#: Envelopes that one transaction takes, at most: more on PostgreSQL, where each statement waits for the server, and
#: nobody for this transaction.
TAKE, TAKE_ON_POSTGRESQL = 1000, 5000
#: Bytes of their payloads, at most.
TAKE_BYTES = 8 * MAX_BYTES
MAX_ALIAS = 63
#: Deliveries of one INSERT: SQLite takes 999 parameters.
AT_ONCE = 100

#: By the key: what was taken lately may still be in the way elsewhere.
ANYTHING = 'SELECT id FROM "pluginhost_envelope" WHERE version <= %s ORDER BY id LIMIT 1'
SIZES = 'SELECT id, LENGTH(payload) FROM "pluginhost_envelope" WHERE version <= %s ORDER BY id LIMIT %s {locked}'
#: The times go back as they came: of an expression, SQLite's driver makes nothing else than text.
COLUMNS = "id, version, lanes, n, COALESCE(created, created), payload"
NEXT = f'SELECT {COLUMNS} FROM "pluginhost_envelope" WHERE version <= %s ORDER BY id LIMIT %s'  # noqa: S608
READ = f'SELECT {COLUMNS} FROM "pluginhost_envelope" WHERE "id" IN {{ids}} ORDER BY id'  # noqa: S608
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


def most(using: str) -> int:
    """How many envelopes one call of ``take`` takes, at most."""
    return TAKE_ON_POSTGRESQL if connections[using].vendor == "postgresql" else TAKE


def take(using: str) -> int:
    """Turn waiting envelopes into chunks and deliveries, in one transaction. Returns how many envelopes.

    Envelopes of a newer version than this code knows stay for the workers that know it.
    """
    connection = connections[using]
    if connection.vendor == "sqlite":
        return _take_on_sqlite(connection)
    if not select(using, ANYTHING, [VERSION]):  # an idle worker takes no locks
        return 0
    with transaction.atomic(using):
        take_write_lock(connection, Envelope)
        if rows := _remove_next(connection):
            _write(rows, using)
    return len(rows)


def _take_on_sqlite(connection: BaseDatabaseWrapper) -> int:
    """SQLite has one lock, and requests wait for it: what needs no lock is done before it is taken."""
    using = connection.alias
    while rows := _read(using):
        with transaction.atomic(using):
            take_write_lock(connection, Envelope)
            if _are_unchanged(rows, using):
                execute(using, REMOVE, ids=[row.id for row in rows])
                _write(rows, using)
                return len(rows)
    return 0


def _read(using: str) -> list[Row]:
    """The next envelopes. SQLite reads a row when it is asked for it, so it reads no more than is taken."""
    rows: list[Row] = []
    total = 0
    with closing(stream(using, NEXT, [VERSION, most(using)])) as found:
        for row in map(Row._make, found):
            total += len(row.payload)
            if rows and total > TAKE_BYTES:
                break
            rows.append(row)
    return rows


def _are_unchanged(rows: Sequence[Row], using: str) -> bool:
    """Whether the envelopes are still there, as they were read."""
    now = select(using, STATES, ids=[row.id for row in rows])
    return now == [(row.id, row.lanes, row.n, len(row.payload)) for row in rows]


def _remove_next(connection: BaseDatabaseWrapper) -> list[Row]:
    """The next envelopes, which are gone then; those that others have locked are passed over."""
    using = connection.alias
    sizes = select(using, SIZES, [VERSION, most(using)])
    if not sizes:
        return []
    totals = accumulate(size for _, size in sizes)
    ids = [id_ for (id_, _), total in zip(sizes, totals, strict=True) if total <= TAKE_BYTES] or [sizes[0][0]]
    if connection.vendor == "postgresql":
        found = sorted(select(using, f"{REMOVE} RETURNING {COLUMNS}", ids=ids, binary=True))
    else:
        found = select(using, READ, ids=ids)
        execute(using, REMOVE, ids=ids)
    rows = list(map(Row._make, found))
    if not isinstance(rows[0].payload, bytes):  # psycopg2 says memoryview
        rows = [row._replace(payload=bytes(row.payload)) for row in rows]
    return rows


def _write(rows: Sequence[Row], using: str) -> None:
    """Write chunks and deliveries for these envelopes."""
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
    deliveries = []
    for (version, names), group in groups.items():
        for members, payload in _chunks(group):
            n, created = sum([row.n for row in members]), min([row.created for row in members])  # as old as the oldest
            chunk = insert(using, CHUNK, [n, created, payload])
            deliveries += [(lane, chunk, version, n, created, Delivery.State.WAITING) for lane in names.split(",")]
    for start in range(0, len(deliveries), AT_ONCE):
        some = deliveries[start : start + AT_ONCE]
        execute(using, DELIVERIES + ", ".join([DELIVERY] * len(some)), [value for row in some for value in row])
    counts.update({(lane, "discarded"): n for lane, n in ceiling.discarded.items()})
    accounts.add(counts, using)
    transaction.on_commit(ceiling.tell, using=using, robust=True)


def _events_by_lanes(rows: Iterable[Row]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for row in rows:
        found[row.lanes] += row.n
    return found


def _storable(names: str) -> str:
    """The lanes of an envelope, as long as a delivery can name them."""
    return ",".join(name[:MAX_ALIAS] for name in names.split(","))


def _chunks(rows: Sequence[Row]) -> Iterator[tuple[list[Row], bytes]]:
    """The envelopes and the payload of each chunk: of envelopes of equal lanes, in their order.

    One that is damaged has a chunk of its own: that is dead, and takes no others with it.
    """
    for members in _in_sizes(rows):
        payload = merge([row.payload for row in members])
        if len(members) > 1 and is_sound(payload, sum([row.n for row in members])):
            yield members, payload
            continue
        for part in _apart(members):
            yield part, part[0].payload if len(part) == 1 else merge([row.payload for row in part])


def _in_sizes(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The same, up to 500 events or 1 MiB each."""
    members: list[Row] = []
    n, size = 0, 0
    for row in rows:
        more, length = row.n, len(row.payload)
        if members and (n + more > MAX_EVENTS or size + length > MAX_BYTES):
            yield members
            members, n, size = [], 0, 0
        members.append(row)
        n, size = n + more, size + length
    if members:
        yield members


def _apart(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The same, with each that is damaged alone."""
    sound: list[Row] = []
    for row in rows:
        if is_sound(row.payload, row.n) and row.n:
            sound.append(row)
            continue
        if sound:
            yield sound
        yield [row]
        sound = []
    if sound:
        yield sound
