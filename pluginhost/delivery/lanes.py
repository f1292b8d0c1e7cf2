"""One lane's hold on the outbox: it claims deliveries, and only who claimed them can finish them.

A claim moves ``due_at`` to the end of a lease and writes a fresh token. Whoever
finishes must still hold that token: a worker whose lease ran out, or that was
stopped for an hour and wakes, finishes nothing. Times are the database's clock.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connections, transaction
from django.db.models import F
from django.db.models.functions import Now

from pluginhost.db import take_write_lock
from pluginhost.delivery.decoding import decode
from pluginhost.delivery.envelopes import MAX_BYTES, VERSION, unpack
from pluginhost.delivery.news import News
from pluginhost.delivery.sql import execute, in_words_of, select
from pluginhost.models import Delivery

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from django.db.models import QuerySet

    from pluginhost.delivery.runner import Runner
    from pluginhost.events import Event

logger = logging.getLogger("pluginhost.delivery")

#: Deliveries that one claim looks at, at most.
LOOK_AT = 100
#: Bytes that one claim reads, at most, as far as the numbers of events tell: an event has up to so many.
CLAIM_BYTES, EVENT_BYTES = 32 * MAX_BYTES, 32 * 1024


#: What is due for a lane. In the order of the index: otherwise a deferred backlog is read from end to end.
_DUE = """
    FROM "pluginhost_delivery"
    WHERE lane = %s AND state = 'waiting' AND due_at <= {now} AND version <= %s
    AND NOT EXISTS (SELECT 1 FROM "pluginhost_lane" WHERE name = %s AND paused_at IS NOT NULL)
    ORDER BY due_at, id
"""
IS_DUE = f"SELECT id {_DUE} LIMIT 1"
DUE = f"""
    SELECT id, lane, chunk_id, version, n, done, created, due_at, attempts, kills, token, reason, message_id
    {_DUE} LIMIT {LOOK_AT} {{locked}}
"""
#: The kills come first: MySQL and MariaDB give each column its new value before they look at the next.
HOLD = """
    UPDATE "pluginhost_delivery"
    SET kills = CASE WHEN token IS NULL THEN kills ELSE kills + 1 END,
        attempts = attempts + 1, token = %s, due_at = {later}
    WHERE "id" IN {ids}
"""
PAYLOADS = """
    SELECT "pluginhost_delivery"."id", COALESCE("pluginhost_delivery".payload, "pluginhost_chunk".payload)
    FROM "pluginhost_delivery" LEFT JOIN "pluginhost_chunk" ON "pluginhost_chunk"."id" = chunk_id
    WHERE "pluginhost_delivery"."id" IN {ids}
"""


class LeaseLost(Exception):
    """Somebody else has claimed these deliveries since."""


class Item(NamedTuple):
    """One event of a claim, the delivery that it belongs to, and its place there."""

    delivery: Delivery
    position: int
    event: Event | None
    problem: str = ""
    """Why it can't be read."""

    @property
    def erased(self) -> bool:
        """Whether it was an event of a person who has been forgotten."""
        return self.event is None and not self.problem


@dataclass
class Claim:
    """Deliveries that this worker holds, and their unfinished events in order."""

    using: str
    lane: str
    lease: float
    token: uuid.UUID = field(default_factory=uuid.uuid4)
    deliveries: dict[int, Delivery] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)
    payloads: dict[int, bytes] = field(default_factory=dict)
    """What was read of each delivery."""
    interrupted: frozenset[int] = frozenset()
    """Deliveries that a worker held when it died."""
    _raw: dict[int, list[bytes]] = field(default_factory=dict)

    @property
    def stored_token(self) -> Any:
        """The token as the database's driver takes it."""
        return Delivery._meta.get_field("token").get_db_prep_value(self.token, connections[self.using])

    @property
    def attempt(self) -> int:
        return max((delivery.attempts for delivery in self.deliveries.values()), default=1)

    def raw(self, item: Item) -> bytes:
        """An event of this claim as it was stored. For the few that fail."""
        pk = item.delivery.pk
        if pk not in self._raw:
            self._raw[pk] = [one.raw for one in unpack(item.delivery.version, self.payloads[pk])]
        return self._raw[pk][item.position]

    def rows(self) -> QuerySet[Delivery]:
        """The deliveries that are still held, as they are in the database."""
        return Delivery.objects.using(self.using).filter(id__in=list(self.deliveries), token=self.token)

    def keep(self) -> None:
        """Begin the lease anew. Raises ``LeaseLost``."""
        if self.rows().update(due_at=Now() + timedelta(seconds=self.lease)) != len(self.deliveries):
            raise LeaseLost

    def release(self) -> None:
        """Give back what was not finished, without an attempt counted."""
        if self.deliveries:
            self.rows().update(token=None, due_at=Now(), attempts=F("attempts") - 1)


def is_due(lane: str, using: str) -> bool:
    """Whether a claim of this lane would find something."""
    return bool(select(using, IS_DUE, [lane, VERSION, lane]))


def lease_of(runner: Runner) -> float:
    """Seconds that a claim lasts, unless it is kept."""
    return max(2 * runner.plugin.timeout, 2.0)


def in_hand(runner: Runner, using: str) -> int:
    """How many claims of this lane are held, whoever holds them; counted up to the lane's concurrency."""
    claims = Delivery.objects.using(using).filter(
        lane=runner.alias,
        state=Delivery.State.WAITING,
        due_at__gt=Now(),
        due_at__lte=Now() + timedelta(seconds=lease_of(runner)),
        token__isnull=False,
    )
    return len(claims.values_list("token").distinct()[: runner.plugin.concurrency])


def claim(runner: Runner, using: str) -> Claim | None:
    """Claim what is due for this lane, up to a batch of events; None if nothing is."""
    lane = runner.alias
    if not is_due(lane, using):  # an idle lane takes no locks
        return None
    connection = connections[using]
    found = Claim(using, lane, lease=lease_of(runner))
    with transaction.atomic(using):
        take_write_lock(connection, Delivery)
        due = Delivery.objects.using(using).raw(in_words_of(connection, DUE), [lane, VERSION, lane])
        chosen = _up_to(due.iterator(), runner.batch_size)
        found.interrupted = frozenset(delivery.pk for delivery in chosen if delivery.token)
        for delivery in chosen:
            delivery.attempts += 1
            delivery.kills += delivery.token is not None  # whoever held it did not come back
            found.deliveries[delivery.pk] = delivery
        if chosen:
            execute(using, HOLD, [found.stored_token, found.lease], ids=found.deliveries)
        # Within the transaction: what can't be read is then not claimed, and nobody takes us for dead.
        _read(found)
    _unpack(found, runner.unread)
    return found


def _up_to(rows: Iterable[Delivery], batch_size: int) -> list[Delivery]:
    """As many whole deliveries as fit into a batch, but at least one. Rows beyond these are not read."""
    chosen: list[Delivery] = []
    total, size = 0, 0
    for delivery in rows:
        total += delivery.n - delivery.done
        size += min(delivery.n * EVENT_BYTES, MAX_BYTES)
        if chosen and (total > batch_size or size > CLAIM_BYTES):
            break
        chosen.append(delivery)
    return chosen


def _read(found: Claim) -> None:
    """Read the payloads of what is claimed."""
    rows = select(found.using, PAYLOADS, ids=found.deliveries, binary=True) if found.deliveries else ()
    payloads = dict.fromkeys(found.deliveries, b"") | dict(rows)
    found.payloads = {pk: bytes(payload or b"") for pk, payload in payloads.items()}


def _unpack(found: Claim, unread: frozenset[str]) -> None:
    """Read the events out of the payloads. A delivery whose payload is damaged as a whole is dead, and keeps it."""
    damaged = []
    for pk, payload in found.payloads.items():
        delivery = found.deliveries[pk]
        try:
            events, problems = decode(delivery.version, payload, unread)
            if len(events) != delivery.n:
                raise ValueError(f"the payload has {len(events)} events instead of {delivery.n}")
        except ValueError as error:
            damaged.append((delivery, str(error)))
        else:
            places = range(delivery.done, delivery.n)
            said = [problems.get(place, "") for place in places] if problems else repeat("")
            found.items += map(Item, repeat(delivery), places, events[delivery.done :], said)
    if damaged:
        _bury(found, damaged)


def _bury(found: Claim, damaged: Sequence[tuple[Delivery, str]]) -> None:
    news = News(found.lane, found.using)
    with transaction.atomic(found.using):
        take_write_lock(connections[found.using], Delivery)
        for delivery, reason in damaged:
            rows = found.rows().filter(id=delivery.pk)
            if rows.update(state=Delivery.State.DEAD, due_at=Now(), token=None, reason=reason):
                logger.error("plugin %s: delivery %s is dead: %s", found.lane, delivery.pk, reason)
                for _ in range(delivery.n - delivery.done):
                    news.dies(delivery.message_id, reason)
        transaction.on_commit(news.tell, using=found.using, robust=True)
    for delivery, _ in damaged:
        del found.deliveries[delivery.pk]
