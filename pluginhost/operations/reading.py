"""Deliveries for people to read: one letter an event, also where the payload is damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from pluginhost.delivery.envelopes import unpack
from pluginhost.models import Chunk, Delivery

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from django.db.models import QuerySet

    from pluginhost.delivery.envelopes import Stored

#: Deliveries whose payloads are in memory at a time.
READ_AT_ONCE = 100
#: Bytes of an unreadable payload that are shown.
SHOWN_BYTES = 200


class Letter(NamedTuple):
    """One dead event, or one that waits."""

    lane: str
    message_id: str
    event_name: str
    reason: str
    attempts: int
    created: datetime
    payload: dict[str, Any] | str
    """The event as it was stored; a description of the bytes if they can't be read."""
    delivery_id: int
    n: int
    """How many events: 1, or as many as an unreadable payload is said to have."""
    due_at: datetime
    """Of a dead letter: when it died."""


def read(queryset: QuerySet[Delivery]) -> Iterator[Letter]:
    """Each unfinished event of these deliveries, in the order of the query; few payloads are in memory at a time."""
    using = queryset.db
    ids = list(queryset.values_list("id", flat=True))
    for start in range(0, len(ids), READ_AT_ONCE):
        page = ids[start : start + READ_AT_ONCE]
        rows = Delivery.objects.using(using).in_bulk(page)
        chunk_ids = {row.chunk_id for row in rows.values() if row.chunk_id}
        chunks = dict(Chunk.objects.using(using).filter(id__in=chunk_ids).values_list("id", "payload"))
        for id_ in page:
            if row := rows.get(id_):  # else it has been finished since
                payload = chunks.get(row.chunk_id) if row.chunk_id else row.payload
                yield from _letters(row, bytes(payload or b""))


def _letters(row: Delivery, payload: bytes) -> Iterator[Letter]:
    """A letter for each unfinished event; one for all of them if the payload can't be read."""
    common: dict[str, Any] = {"lane": row.lane, "reason": row.reason, "attempts": row.attempts, "created": row.created}
    common |= {"delivery_id": row.pk, "due_at": row.due_at}
    try:
        stored = unpack(row.version, payload)
    except ValueError as error:
        stored, problem = [], str(error)
    else:
        problem = f"the payload has {len(stored)} events instead of {row.n}"
    if len(stored) != row.n:
        described = f"{problem}; {_shown(payload)}"
        n = row.n - row.done
        yield Letter(message_id=row.message_id, event_name=row.event_name, payload=described, n=n, **common)
        return
    for one in stored[row.done :]:
        message_id, name = (one.event.message_id, one.event.name) if one.event else (row.message_id, row.event_name)
        yield Letter(message_id=message_id, event_name=name, payload=_decoded(one), n=1, **common)


def _decoded(stored: Stored) -> dict[str, Any] | str:
    if stored.erased:
        return stored.problem
    try:
        decoded = msgspec.json.decode(stored.raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        decoded = None
    return decoded if isinstance(decoded, dict) else f"{stored.problem}; {_shown(stored.raw)}"


def _shown(payload: bytes) -> str:
    more = f" and {len(payload) - SHOWN_BYTES} more" if len(payload) > SHOWN_BYTES else ""
    return f"{len(payload)} bytes: {payload[:SHOWN_BYTES]!r}{more}"
