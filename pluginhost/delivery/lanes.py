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
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from django.db import connections, transaction
from django.db.models import Case, Exists, F, When
from django.db.models.functions import Now

from pluginhost.db import skip_locked, take_write_lock
from pluginhost.delivery.envelopes import VERSION, unpack
from pluginhost.delivery.news import News
from pluginhost.models import Chunk, Delivery, Lane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.models import QuerySet

    from pluginhost.delivery.envelopes import Stored
    from pluginhost.delivery.runner import Runner

logger = logging.getLogger("pluginhost.delivery")

#: Deliveries that one claim looks at, at most.
LOOK_AT = 100


class LeaseLost(Exception):
    """Somebody else has claimed these deliveries since."""


class Item(NamedTuple):
    """One event of a claim, the delivery that it belongs to, and its place there."""

    delivery: Delivery
    position: int
    stored: Stored


@dataclass
class Claim:
    """Deliveries that this worker holds, and their unfinished events in order."""

    using: str
    lane: str
    lease: float
    token: uuid.UUID = field(default_factory=uuid.uuid4)
    deliveries: dict[int, Delivery] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)
    interrupted: frozenset[int] = frozenset()
    """Deliveries that a worker held when it died."""
    damaged: list[tuple[Delivery, str]] = field(default_factory=list)
    """Deliveries that can't be read as a whole, and why."""

    @property
    def attempt(self) -> int:
        return max((delivery.attempts for delivery in self.deliveries.values()), default=1)

    def rows(self) -> QuerySet[Delivery]:
        """The deliveries that are still held, as they are in the database."""
        return Delivery.objects.using(self.using).filter(id__in=list(self.deliveries), token=self.token)

    def keep(self) -> None:
        """Begin the lease anew. Raises ``LeaseLost``."""
        if self.rows().update(due_at=Now() + timedelta(seconds=self.lease)) != len(self.deliveries):
            raise LeaseLost

    def release(self) -> None:
        """Give back what was not finished, without an attempt counted."""
        self.rows().update(token=None, due_at=Now(), attempts=F("attempts") - 1)


def is_due(lane: str, using: str) -> bool:
    """Whether a claim of this lane would find something."""
    # In the order of the index: otherwise a deferred backlog is read from end to end.
    return bool(_due(lane, using).order_by("due_at", "id").values_list("id")[:1])


def _due(lane: str, using: str) -> QuerySet[Delivery]:
    return Delivery.objects.using(using).filter(
        ~Exists(Lane.objects.filter(name=lane, paused_at__isnull=False)),
        lane=lane,
        state=Delivery.State.WAITING,
        due_at__lte=Now(),
        version__lte=VERSION,
    )


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
    if not is_due(runner.alias, using):  # an idle lane takes no locks
        return None
    due = _due(runner.alias, using)
    connection = connections[using]
    found = Claim(using, runner.alias, lease=lease_of(runner))
    with transaction.atomic(using):
        take_write_lock(connection, Delivery)
        rows = (
            due.order_by("due_at", "id")
            .select_for_update(skip_locked=skip_locked(connection))
            .defer("payload")[:LOOK_AT]
        )
        chosen = _up_to(list(rows), runner.batch_size)
        for delivery in chosen:
            delivery.attempts += 1
            delivery.kills += delivery.token is not None  # whoever held it did not come back
            found.deliveries[delivery.pk] = delivery
        found.interrupted = frozenset(delivery.pk for delivery in chosen if delivery.token)
        mine = Delivery.objects.using(using).filter(id__in=list(found.deliveries))
        mine.update(
            token=found.token,
            due_at=Now() + timedelta(seconds=found.lease),
            attempts=F("attempts") + 1,
            kills=Case(When(token=None, then=F("kills")), default=F("kills") + 1),
        )
        # Within the transaction: what can't be read is then not claimed, and nobody takes us for dead.
        _read(found)
    if found.damaged:
        transaction.on_commit(partial(_tell_damaged, found), using=using, robust=True)
    return found


def _tell_damaged(found: Claim) -> None:
    news = News(found.lane, found.using)
    for delivery, reason in found.damaged:
        for _ in range(delivery.n - delivery.done):
            news.dies(delivery.message_id, reason)
    news.tell()


def _up_to(rows: Sequence[Delivery], batch_size: int) -> list[Delivery]:
    """As many whole deliveries as fit into a batch, but at least one."""
    chosen: list[Delivery] = []
    total = 0
    for delivery in rows:
        if chosen and total + delivery.n - delivery.done > batch_size:
            break
        total += delivery.n - delivery.done
        chosen.append(delivery)
    return chosen


def _read(found: Claim) -> None:
    """Read the payloads. A delivery whose payload is damaged as a whole is dead, and keeps it."""
    own = dict(found.rows().filter(chunk=None).values_list("id", "payload"))
    chunk_ids = {delivery.chunk_id for delivery in found.deliveries.values() if delivery.chunk_id}
    chunks = dict(Chunk.objects.using(found.using).filter(id__in=chunk_ids).values_list("id", "payload"))
    for delivery in list(found.deliveries.values()):
        payload = chunks.get(delivery.chunk_id) if delivery.chunk_id else own.get(delivery.pk)
        try:
            stored = unpack(delivery.version, bytes(payload or b""))
            if len(stored) != delivery.n:
                raise ValueError(f"the payload has {len(stored)} events instead of {delivery.n}")
        except ValueError as error:
            logger.error("plugin %s: delivery %s is dead: %s", found.lane, delivery.pk, error)
            found.rows().filter(id=delivery.pk).update(
                state=Delivery.State.DEAD, due_at=Now(), token=None, reason=str(error)
            )
            del found.deliveries[delivery.pk]
            found.damaged.append((delivery, str(error)))
        else:
            found.items += [Item(delivery, place, stored[place]) for place in range(delivery.done, delivery.n)]
