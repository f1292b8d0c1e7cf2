"""From the broker into the outbox: what the task of the ingest queue does with one message."""

from __future__ import annotations

import json
import logging
import uuid
from typing import Any

from django.db import connections, router

from pluginhost import counts
from pluginhost.delivery import outbox
from pluginhost.models import Envelope

logger = logging.getLogger("pluginhost.broker")

#: What the columns hold.
MAX_VERSION = 2**15 - 1
MAX_N = 2**31 - 1
#: For the ids of envelopes whose own can't be read: the same message makes the same one each time.
DAMAGED = uuid.UUID("6f1a0d59-6f0c-5a57-9d0e-2f4b8f6f2f0c")


def ingest(
    version: Any = None,
    envelope_id: Any = None,
    lanes: Any = None,
    n: Any = None,
    payload: Any = None,
    using: Any = None,
) -> bool:
    """Store one envelope in the outbox, once, however often it comes.

    ``version`` of the envelope's format: a newer one waits in the outbox for workers
    that know it. ``lanes`` are aliases with commas between them, ``payload`` is text,
    ``using`` the database; another is the router's, if there is none of that name.

    Returns True once it is stored. A message that no version of the host has written
    so is stored too, whole, for the lanes that it names: there it becomes a dead
    letter with a reason. If it names none it is logged and counted as lost, and the
    answer is False. Neither is worth another try.

    Raises what the database raises. Whoever calls it from a task waits and tries
    again, and then gives the message back (``Reject(requeue=True)``). The task must
    not just fail: a message whose task failed is acknowledged, unless the site has
    set it otherwise, and so lost. A ``TypeError``, for an argument that this version
    does not know, is treated likewise: a newer one does.
    """
    message = {"version": version, "envelope_id": envelope_id, "lanes": lanes, "n": n, "payload": payload}
    if not _is_lanes(lanes):
        logger.error("a message of the broker is lost: it names no lanes (envelope %.50r)", envelope_id)
        counts.count("lost", n if _is_number(n, MAX_N) else 1)
        return False
    row = _row(version, envelope_id, lanes, n, payload) or _whole(message)
    outbox.transport.store(row, _database(using))
    return True


def _is_lanes(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and value.isascii() and value.isprintable()


def _is_number(value: Any, most: int) -> bool:
    return type(value) is int and 0 < value <= most


def _row(version: Any, envelope_id: Any, lanes: str, n: Any, payload: Any) -> outbox.Row | None:
    """The envelope, or None if it is damaged."""
    if not (_is_number(version, MAX_VERSION) and _is_number(n, MAX_N) and isinstance(payload, str)):
        return None
    try:
        return outbox.Row(uuid.UUID(envelope_id).hex, version, lanes, n, payload.encode())
    except (AttributeError, TypeError, ValueError):  # the id is none, or half a character is in the text
        return None


def _whole(message: dict[str, Any]) -> outbox.Row:
    """An envelope whose payload is the message itself, which no lane can read."""
    text = json.dumps(message, sort_keys=True, default=repr)  # ASCII
    id_, n = uuid.uuid5(DAMAGED, text), message["n"]
    logger.error("a message of the broker is damaged; it becomes a dead letter (envelope %s)", id_)
    return outbox.Row(id_.hex, 1, message["lanes"], n if _is_number(n, MAX_N) else 1, text.encode())


def _database(using: Any) -> str:
    if isinstance(using, str) and using in connections:
        return using
    chosen = router.db_for_write(Envelope)
    logger.error("there is no database %.50r here; what was for it goes to %r", using, chosen)
    return chosen
