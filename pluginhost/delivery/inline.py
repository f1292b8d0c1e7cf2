"""The transport without a queue: lanes run in the caller, after commit if there is a transaction.

One attempt an event; what fails is logged and gone. For tests, scripts and tiny sites.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from django.db import transaction

from pluginhost.db import in_transaction
from pluginhost.delivery.envelopes import VERSION, unpack
from pluginhost.registry import get_registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pluginhost.delivery.envelopes import Envelope
    from pluginhost.delivery.runner import Runner
    from pluginhost.events import Event

logger = logging.getLogger("pluginhost.delivery")


class Inline:
    uses_database: ClassVar[bool] = True

    def put(self, envelopes: Sequence[Envelope], using: str) -> bool:
        deliver = partial(_deliver, envelopes)
        if in_transaction(using):
            transaction.on_commit(deliver, using=using, robust=True)
        else:
            deliver()
        return True


def _deliver(envelopes: Sequence[Envelope]) -> None:
    runners = get_registry().runners
    for envelope in envelopes:
        events = [stored.event for stored in unpack(VERSION, envelope.payload) if stored.event]
        for alias in envelope.lanes:
            if runner := runners.get(alias):
                _run(runner, events)


def _run(runner: Runner, events: Sequence[Event]) -> None:
    """All events, in batches of the plugin's size; nothing is tried twice."""
    for start in range(0, len(events), runner.batch_size):
        batch = events[start : start + runner.batch_size]
        result = runner.run(batch, paced=False)
        failures = {index: failure.reason for index, failure in result.failures.items()}
        if result.deferred:
            failures.update(dict.fromkeys(range(result.done, len(batch)), result.deferred.reason))
        for index, reason in failures.items():
            logger.error("plugin %s: event %s is lost: %s", runner.alias, batch[index].message_id, reason)


transport = Inline()
