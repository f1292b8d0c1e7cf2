"""Writes down what became of a batch: in one transaction, with the accounts, and only by who holds the claim."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import OperationalError, connections, transaction
from django.db.models.functions import Now

from pluginhost.db import take_write_lock
from pluginhost.delivery import accounts
from pluginhost.delivery.envelopes import join
from pluginhost.delivery.lanes import LeaseLost
from pluginhost.delivery.news import News
from pluginhost.delivery.sql import execute
from pluginhost.models import Chunk, Delivery

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pluginhost.delivery.failures import Failure
    from pluginhost.delivery.lanes import Claim, Item
    from pluginhost.plugin import LaneOptions

logger = logging.getLogger("pluginhost.delivery")

#: What a receiver may ask for with Retry-After, at most, in seconds.
MAX_RETRY_AFTER = 3600.0
#: Seconds between two attempts to write down an outcome.
PAUSES = (0.1, 0.5, 2.0)
#: Rows of one INSERT, each with an event of up to 32 KiB: a server takes 4 MiB, and escapes may double them.
ROWS = 50

FINISH = 'DELETE FROM "pluginhost_delivery" WHERE token = %s AND "id" IN {ids}'
SWEEP = """
    DELETE FROM "pluginhost_chunk" WHERE "id" IN {ids}
    AND NOT EXISTS (SELECT 1 FROM "pluginhost_delivery" WHERE chunk_id = "pluginhost_chunk"."id")
"""


@dataclass
class Outcome:
    """What became of a slice of a claim's events; all of them before ``done`` are finished or in ``failures``."""

    items: Sequence[Item]
    done: int
    skipped: int = 0
    discarded: int = 0
    """Of people who have been forgotten since."""
    erased: int = 0
    """Likewise, but from ``done`` on: of deliveries that have had their last attempt."""
    failures: dict[int, Failure] = field(default_factory=dict)
    deferred: Failure | None = None
    """Why everything from ``done`` on waits, and with it the rest of the claim."""

    @property
    def delivered(self) -> int:
        return self.done - self.skipped - self.discarded - len(self.failures)


def delay(lane: LaneOptions, attempts: int, failure: Failure) -> float:
    """Seconds until the next attempt: doubled each time, up to a limit, with jitter; or what the receiver asked for."""
    if failure.retry_after is not None:
        return min(max(failure.retry_after, 0.0), MAX_RETRY_AFTER)
    doubled = lane.RETRY_DELAY * 2.0 ** min(attempts - 1, 30)
    return min(doubled, lane.RETRY_MAX_DELAY) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


def settle(claim: Claim, outcome: Outcome, lane: LaneOptions) -> None:
    """Write down the outcome. Raises ``LeaseLost``, and writes nothing, if the claim has passed to another worker.

    A database that refuses is asked again: what is not written down is delivered again.
    """
    before = {pk: (delivery.done, delivery.attempts) for pk, delivery in claim.deliveries.items()}
    for pause in (*PAUSES, None):
        news = News(claim.lane, claim.using)
        try:
            finished = _settle(claim, outcome, lane, news)
            break
        except OperationalError as error:
            if pause is None:
                raise
            logger.warning("lane %s: the outcome could not be written, and is tried again: %s", claim.lane, error)
            for pk, (done, attempts) in before.items():
                claim.deliveries[pk].done, claim.deliveries[pk].attempts = done, attempts
            connections[claim.using].close_if_unusable_or_obsolete()
            time.sleep(pause)
    for delivery in finished:
        claim.deliveries.pop(delivery.pk, None)
    news.count(outcome)
    transaction.on_commit(news.tell, using=claim.using, robust=True)
    try:
        sweep_chunks(claim.using, [delivery.chunk_id for delivery in finished if delivery.chunk_id])
    except OperationalError:  # a later sweep finds them
        logger.debug("lane %s: chunks are left behind", claim.lane, exc_info=True)


def _settle(claim: Claim, outcome: Outcome, lane: LaneOptions, news: News) -> list[Delivery]:
    """One try, in one transaction. Returns the deliveries that are held no more."""
    with transaction.atomic(claim.using):
        take_write_lock(connections[claim.using], Delivery)
        finished = _finish(claim) if _is_whole(claim, outcome) else _write_down(claim, outcome, lane, news)
        accounts.add(
            {
                (claim.lane, "delivered"): outcome.delivered,
                (claim.lane, "skipped"): outcome.skipped,
                (claim.lane, "discarded"): outcome.discarded + outcome.erased,
            },
            claim.using,
        )
    return finished


def _is_whole(claim: Claim, outcome: Outcome) -> bool:
    """Whether all that is claimed is finished, and nothing has failed."""
    unfinished = sum(delivery.n - delivery.done for delivery in claim.deliveries.values())
    return outcome.done == unfinished and not outcome.failures and not outcome.deferred


def _finish(claim: Claim) -> list[Delivery]:
    """The usual end: all of it goes, or nothing, if it has passed to another worker or is gone already."""
    if execute(claim.using, FINISH, [claim.stored_token], ids=claim.deliveries) != len(claim.deliveries):
        raise LeaseLost
    finished = list(claim.deliveries.values())
    for delivery in finished:
        delivery.done = delivery.n
    return finished


def _write_down(claim: Claim, outcome: Outcome, lane: LaneOptions, news: News) -> list[Delivery]:
    """Whatever else can come of a batch. Returns the deliveries that are held no more."""
    held = dict(claim.rows().order_by("id").select_for_update().values_list("id", "done"))
    # ``done`` too: a commit whose answer was lost has happened, and must not happen again.
    if held != {pk: delivery.done for pk, delivery in claim.deliveries.items()}:
        raise LeaseLost
    finished = _write_failures(claim, outcome, lane, news)
    finished += _write_progress(claim, outcome, finished)
    if outcome.deferred:
        finished += _defer(claim, outcome, outcome.deferred, lane, news)
    return finished


def _write_failures(claim: Claim, outcome: Outcome, lane: LaneOptions, news: News) -> list[Delivery]:
    """Give each failed event a delivery of its own. Returns those that were of one event already."""
    alone, leaving = [], []
    for index, failure in outcome.failures.items():
        item = outcome.items[index]
        row = _row_of(claim, item, failure, lane, news)
        if item.delivery.chunk_id is None and item.delivery.n == 1:
            alone.append(item.delivery)
            changed = {name: getattr(row, name) for name in ("state", "due_at", "attempts", "reason")}
            claim.rows().filter(id=item.delivery.pk).update(token=None, kills=0, **changed)
        else:
            leaving.append(row)
    Delivery.objects.using(claim.using).bulk_create(leaving, batch_size=ROWS)
    return alone


def _row_of(claim: Claim, item: Item, failure: Failure, lane: LaneOptions, news: News) -> Delivery:
    """The delivery of one failed event: waiting for its next attempt, or dead."""
    delivery, event = item.delivery, item.event
    dead = failure.dead or (failure.retry_after is None and delivery.attempts >= lane.MAX_ATTEMPTS)
    message_id = event.message_id if event else ""
    seconds = delay(lane, delivery.attempts, failure)
    if dead:
        news.dies(message_id, failure.reason)
        logger.error("plugin %s: event %s is dead: %s", delivery.lane, message_id, failure.reason)
    else:
        news.waits(delivery, 1, seconds, failure)
    if not dead and delivery.attempts == 1:
        logger.warning("plugin %s: event %s is tried again: %s", delivery.lane, message_id, failure.reason)
    return Delivery(
        lane=delivery.lane,
        payload=join([claim.raw(item)]),
        version=delivery.version,
        n=1,
        created=delivery.created,
        due_at=Now() if dead else Now() + timedelta(seconds=seconds),
        attempts=delivery.attempts - (failure.retry_after is not None),
        state=Delivery.State.DEAD if dead else Delivery.State.WAITING,
        reason=failure.reason,
        message_id=message_id,
        event_name=event.name[:200] if event else "",
    )


def _write_progress(claim: Claim, outcome: Outcome, written: Sequence[Delivery]) -> list[Delivery]:
    """Delete the deliveries that are finished, move the others on, and begin the lease anew."""
    finished = []
    last = {item.delivery.pk: item for item in outcome.items[: outcome.done]}
    for item in last.values():
        delivery = item.delivery
        if delivery in written:
            continue
        delivery.done = item.position + 1
        if delivery.done == delivery.n:
            finished.append(delivery)
        else:
            # What moves on is not stuck: its attempts are counted from here.
            delivery.attempts, delivery.kills = 1, 0
            claim.rows().filter(id=delivery.pk).update(done=delivery.done, attempts=1, kills=0)
    claim.rows().filter(id__in=[delivery.pk for delivery in finished]).delete()
    claim.rows().update(due_at=Now() + timedelta(seconds=claim.lease))
    return finished


def _defer(claim: Claim, outcome: Outcome, failure: Failure, lane: LaneOptions, news: News) -> list[Delivery]:
    """Let everything that is still held wait for its next attempt; bury, and return, what has had its last."""
    buried = []
    outcome.erased = 0
    waiting = list(claim.rows().values_list("id", flat=True))
    deliveries = [claim.deliveries[pk] for pk in waiting]
    if any(delivery.attempts == 1 for delivery in deliveries):
        logger.warning("plugin %s waits: %s", claim.lane, failure.reason)
    for delivery in deliveries:
        if failure.retry_after is None and delivery.attempts >= lane.MAX_ATTEMPTS:
            outcome.erased += _bury(claim, delivery, failure, lane, news)
            buried.append(delivery)
            continue
        seconds = delay(lane, delivery.attempts, failure)
        news.waits(delivery, delivery.n - delivery.done, seconds, failure)
        claim.rows().filter(id=delivery.pk).update(
            due_at=Now() + timedelta(seconds=seconds),
            attempts=delivery.attempts - (failure.retry_after is not None),
            reason=failure.reason,
            kills=0,
            token=None,
        )
    return buried


def _bury(claim: Claim, delivery: Delivery, failure: Failure, lane: LaneOptions, news: News) -> int:
    """Make each unfinished event of a delivery a dead letter of its own. Returns how many were of forgotten people."""
    unfinished = [item for item in claim.items if item.delivery is delivery and item.position >= delivery.done]
    claim.rows().filter(id=delivery.pk).delete()
    left = [item for item in unfinished if not item.erased]
    letters = [_row_of(claim, item, failure._replace(dead=True), lane, news) for item in left]
    Delivery.objects.using(claim.using).bulk_create(letters, batch_size=ROWS)
    return len(unfinished) - len(left)


def sweep_chunks(using: str, chunk_ids: Iterable[int] | None = None) -> int:
    """Delete chunks without deliveries, of these ids or of all. Returns how many.

    Called after the commit that finished a delivery: of two lanes that finish the
    same chunk at once, the later one sees no delivery left.
    """
    if chunk_ids is None:
        return Chunk.objects.using(using).filter(deliveries=None).delete()[0]
    ids = sorted(chunk_ids)
    return execute(using, SWEEP, ids=ids) if ids else 0
