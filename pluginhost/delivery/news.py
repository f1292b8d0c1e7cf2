"""What a settled batch has to tell once it is committed: to signals, to metrics, and of a lane's troubles."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pluginhost import metrics, signals
from pluginhost.delivery import troubles

if TYPE_CHECKING:
    from collections.abc import Callable

    from pluginhost.delivery.failures import Failure
    from pluginhost.delivery.settling import Outcome
    from pluginhost.models import Delivery

#: The reason that receivers of ``events_discarded`` are told.
FORGOTTEN = "of a person who has been forgotten"
#: So long a receiver may ask to wait before that is a trouble of the lane.
LONG = dt.timedelta(days=1)


def tell_discarded(lane: str, n: int, reason: str, using: str, *, send: Callable[..., None] = signals.announce) -> None:
    """Tell that so many events of a lane were given up. To be called after the commit.

    ``send`` is ``signals.post`` for those who may not wait for receivers.
    """
    if measured := metrics.instruments():
        measured.settled(lane, {"discarded": n})
    send(signals.events_discarded, lane=lane, n=n, reason=reason, using=using)


@dataclass
class News:
    """Collected while a batch is written down, told after the commit."""

    lane: str
    using: str
    delivered: int = 0
    skipped: int = 0
    discarded: int = 0
    waiting: int = 0
    waits_because: str = ""
    retry_in: float = 0.0
    """Seconds until the first of those that wait is tried again."""
    dead: list[str] = field(default_factory=list)
    """Message ids; one that could not be read is empty."""
    died_because: str = ""
    asked_since: dt.datetime | None = None
    """Since when an event waits whose receiver has asked for it for too long."""

    def dies(self, message_id: str, reason: str) -> None:
        """An event has become a dead letter."""
        self.dead.append(message_id)
        self.died_because = self.died_because or reason

    def waits(self, delivery: Delivery, n: int, seconds: float, failure: Failure) -> None:
        """So many events of a delivery wait for their next attempt."""
        self.retry_in = min(seconds, self.retry_in) if self.waiting else seconds
        self.waiting += n
        self.waits_because = self.waits_because or failure.reason
        # Both are times of the database's clock: of the acceptance, and of the moment when it was due now. It had
        # a reason to wait before, so it is not only that no worker ran.
        asks_again = failure.retry_after is not None and bool(delivery.reason)
        if asks_again and delivery.due_at - delivery.created > LONG:
            self.asked_since = min(delivery.created, self.asked_since or delivery.created)

    def count(self, outcome: Outcome) -> None:
        """Take over the numbers of an outcome."""
        self.delivered, self.skipped = outcome.delivered, outcome.skipped
        self.discarded = outcome.discarded + outcome.erased

    def tell(self) -> None:
        """Tell it. To be called after the commit; waits for nobody."""
        if measured := metrics.instruments():
            measured.settled(
                self.lane,
                {
                    "delivered": self.delivered,
                    "skipped": self.skipped,
                    "deferred": self.waiting,
                    "dead": len(self.dead),
                    "discarded": self.discarded,
                },
            )
        self._signal()
        if self.asked_since is not None:
            troubles.keeps_asking(self.lane, self.using, self.asked_since, self.waits_because)
        elif self.delivered:
            troubles.works(self.lane, self.using)

    def _signal(self) -> None:
        lane, using = self.lane, self.using
        if self.delivered:
            signals.post(signals.events_delivered, lane=lane, n=self.delivered, using=using)
        if self.skipped:
            signals.post(signals.events_skipped, lane=lane, n=self.skipped, using=using)
        if self.waiting:
            signals.post(
                signals.events_deferred,
                lane=lane,
                n=self.waiting,
                reason=self.waits_because,
                retry_in=self.retry_in,
                using=using,
            )
        if self.dead:
            signals.post(
                signals.events_dead,
                lane=lane,
                n=len(self.dead),
                message_ids=tuple(filter(None, self.dead)),
                reason=self.died_because,
                using=using,
            )
        if self.discarded:
            signals.post(signals.events_discarded, lane=lane, n=self.discarded, reason=FORGOTTEN, using=using)
