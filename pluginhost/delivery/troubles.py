"""What is wrong with a lane beyond a failed delivery: kept in its row until the lane works again."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError
from django.db import connections
from django.db.models.functions import Now

from pluginhost.db import upsert
from pluginhost.models import Lane
from pluginhost.signals import lane_troubled, post

if TYPE_CHECKING:
    import datetime as dt

logger = logging.getLogger("pluginhost.delivery")

#: Seconds after which a lane that works is looked at again, and a wait that lasts is told again.
AGAIN = 3600.0
#: Seconds that a worker which has to end gives the database to take a mark.
SECONDS_TO_MARK = 5.0

_cleared: dict[tuple[str, str], float] = {}
_told: dict[tuple[str, str], float] = {}


def mark(lane: str, using: str, trouble: str) -> None:
    """Write it into the lane's row, and send ``lane_troubled``. A database that refuses is logged."""
    try:
        upsert(Lane(name=lane, trouble=trouble, trouble_at=Now()), "trouble", "trouble_at", using=using)
    except DatabaseError as error:
        logger.warning("lane %s: its trouble could not be written down: %s", lane, error)
    post(lane_troubled, lane=lane, trouble=trouble, using=using)


def mark_soon(lane: str, using: str, trouble: str) -> None:
    """The same for a process that has to end: on a connection of its own, for some seconds at most."""

    def act() -> None:
        try:
            mark(lane, using, trouble)
        finally:
            connections.close_all()

    thread = threading.Thread(target=act, name="pluginhost-mark", daemon=True)
    thread.start()
    thread.join(SECONDS_TO_MARK)


def keeps_asking(lane: str, using: str, since: dt.datetime, reason: str) -> None:
    """A receiver still asks to wait with events that were accepted at ``since``: told at most once an hour."""
    now = time.monotonic()
    if now - _told.get((using, lane), -AGAIN) < AGAIN:
        return
    _told[using, lane] = now
    trouble = f"the receiver asks to wait, again and again; events wait since {since:%Y-%m-%d %H:%M}: {reason}"
    logger.error("plugin %s: %s", lane, trouble)
    mark(lane, using, trouble)


def works(lane: str, using: str) -> None:
    """The lane has delivered, so what was wrong is over. Asks the database at a process's first batch and hourly."""
    now = time.monotonic()
    if now - _cleared.get((using, lane), -AGAIN) < AGAIN:
        return
    _cleared[using, lane] = now
    troubled = Lane.objects.using(using).filter(name=lane).exclude(trouble="")
    try:
        if troubled.exists():
            troubled.filter(paused_at=None).delete()
            troubled.update(trouble="", trouble_at=None)
    except DatabaseError as error:
        logger.debug("lane %s: its trouble could not be cleared: %s", lane, error)


def reset() -> None:
    """Forget what this process has told and cleared."""
    _told.clear()
    _cleared.clear()
