"""Fills an outbox with events that wait, faster than they could be tracked. Runs within a booted site."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from typing import TYPE_CHECKING

from benchmarks import sample

if TYPE_CHECKING:
    from pluginhost import Event

#: Rows of one INSERT.
AT_ONCE = 200
PRODUCTS = 50


def event(index: int = 0) -> Event:
    """An event as the host would make it of the sample."""
    from pluginhost.events import Context, Event, Subject, new_message_id

    page = sample.CONTEXT["page"]
    return Event(
        type="track",
        name=sample.NAME,
        message_id=new_message_id(),
        timestamp=dt.datetime.now(dt.UTC),
        properties=sample.PROPERTIES,
        user_id=sample.USER_ID,
        subject=Subject("shop.Product", str(index % PRODUCTS + 1)),
        context=Context(
            ip=sample.CONTEXT["ip"],
            user_agent=sample.CONTEXT["userAgent"],
            language=sample.CONTEXT["locale"],
            method="GET",
            url=page["url"],
            path=page["path"],
            referrer=page["referrer"],
            route="paid",
        ),
    )


def fill(count: int, lanes: str) -> None:
    """Put so many envelopes of one event each into the outbox, each event with an id of its own."""
    from pluginhost.delivery.envelopes import VERSION, join
    from pluginhost.events import encode, uuid7
    from pluginhost.models import Envelope

    Envelope.objects.bulk_create(
        (
            Envelope(
                envelope_id=uuid.UUID(uuid7()),
                version=VERSION,
                lanes=lanes,
                n=1,
                payload=join([encode(event(index))]),
            )
            for index in range(count)
        ),
        batch_size=AT_ONCE,
    )


def fill_with_copies(count: int, lanes: str) -> None:
    """The same, but all of one event: a million within seconds, for lanes that do not look at it.

    Their ids are in the order of time, four a millisecond, as those are that the host gives (RFC 9562, 5.7).
    """
    from django.db import connection

    from pluginhost.delivery.envelopes import VERSION, join
    from pluginhost.events import encode

    columns = "INSERT INTO pluginhost_envelope (envelope_id, version, lanes, n, payload)"
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            sql = (
                f"{columns} WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < %s)"
                " SELECT printf('%%012x7', %s + i / 4) || substr(lower(hex(randomblob(2))), 2)"
                " || '8' || substr(lower(hex(randomblob(8))), 2), %s, %s, 1, %s FROM numbers"
            )
        else:
            sql = (
                f"{columns} SELECT (lpad(to_hex(%s + i / 4), 12, '0') || '7' ||"
                " substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid, %s, %s, 1, %s"
                " FROM generate_series(1, %s::bigint) AS numbers (i)"
            )
        values = [time.time_ns() // 1_000_000, VERSION, lanes, join([encode(event())])]
        cursor.execute(sql, [count, *values] if connection.vendor == "sqlite" else [*values, count])
        if connection.vendor == "postgresql":
            cursor.execute("ANALYZE pluginhost_envelope")
