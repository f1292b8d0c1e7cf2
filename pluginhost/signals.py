"""Signals: what became of events, for sites that want to know.

All are sent after the commit that made it so, by the process that did it: most of
them in a thread of a worker. A receiver that raises is logged and harms nothing.
The sender is None.
"""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

logger = logging.getLogger("pluginhost.signals")

#: ``lane``, ``n``, ``using``: so many events were delivered.
events_delivered = Signal()
#: ``lane``, ``n``, ``using``: so many events were not for the plugin.
events_skipped = Signal()
#: ``lane``, ``n``, ``reason``, ``retry_in`` (seconds), ``using``: so many events wait for another attempt.
events_deferred = Signal()
#: ``lane``, ``message_ids``, ``reason``, ``using``: events became dead letters.
events_dead = Signal()
#: ``lane``, ``n``, ``reason``, ``using``: events were given up by a person, by retention, or because the lane was full.
events_discarded = Signal()
#: ``lane``, ``limit``, ``using``: a lane has as many events waiting as BACKLOG_LIMIT allows.
backlog_full = Signal()
#: ``lane``, ``trouble``, ``using``: a hook of the lane hung, or its thread died.
lane_troubled = Signal()


def announce(signal: Signal, *, lane: str, **details: Any) -> None:
    """Send a signal; nothing is raised."""
    if not signal.has_listeners(None):
        return
    for receiver, answer in signal.send_robust(None, lane=lane, **details):
        if isinstance(answer, Exception):
            logger.error("a receiver of a signal failed: %r", receiver, exc_info=answer)
