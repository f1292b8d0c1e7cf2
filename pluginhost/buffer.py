"""Where events wait for the end of a request or of ``host.batch()``, and when they must not.

There is no process-wide buffer: an event waits in memory only where the flush is
certain, and never inside a transaction that the block did not begin in, because
only the database knows what a rollback takes back.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from django.db import connections

from pluginhost import identity
from pluginhost.conf import get_settings
from pluginhost.db import in_transaction
from pluginhost.delivery.envelopes import MAX_EVENTS
from pluginhost.events import encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

    from pluginhost.events import Event

current: ContextVar[Buffer | None] = ContextVar("pluginhost_buffer", default=None)


class Pending(NamedTuple):
    """An accepted event that is not sealed yet."""

    lanes: tuple[str, ...]
    event: Event
    encoded: bytes
    request: HttpRequest | None
    """Asked who it is when the envelope is sealed; None if that is settled."""

    def sealed(self) -> tuple[tuple[str, ...], bytes]:
        """The lanes and the final bytes: a log-in between the call and the seal counts."""
        if self.request is not None:
            user_id = identity.resolve(self.request, get_settings())
            if user_id is not None:
                return self.lanes, encode(msgspec.structs.replace(self.event, user_id=user_id))
        return self.lanes, self.encoded


class Buffer:
    """Events of one block. It becomes the innermost one at once, and stops being it in ``leave``."""

    def __init__(self, send: Callable[[list[Pending], str], bool], using: str | None = None) -> None:
        self.outer = current.get()
        self._send = send
        self.using = using
        """The only database that this buffer is for; None: any, outside of transactions."""
        self._pending: dict[str, list[Pending]] = {}
        self._open = True
        self._savepoints: int | None = None
        if using is not None and in_transaction(using):
            self._savepoints = connections[using].savepoint_state
        self._token = current.set(self)

    def accepts(self, using: str) -> bool:
        """Whether an event for this database may wait here.

        Inside a transaction it may if the block began in that transaction, and no
        savepoint was made since: what a savepoint takes back must be in the
        database by then.
        """
        if not self._open or self.using not in (None, using):
            return False
        if not in_transaction(using):
            return True
        return self._savepoints is not None and connections[using].savepoint_state == self._savepoints

    def add(self, pending: Pending, using: str) -> None:
        waiting = self._pending.setdefault(using, [])
        waiting.append(pending)
        if len(waiting) == MAX_EVENTS:
            self.flush()

    def __bool__(self) -> bool:
        return bool(self._pending)

    def flush(self) -> None:
        pending, self._pending = self._pending, {}
        for using, waiting in pending.items():
            self._send(waiting, using)

    def leave(self) -> None:
        """Take nothing more: what a streamed response tracks later is sent at once."""
        self._open = False
        current.reset(self._token)

    def close(self) -> None:
        self.leave()
        self.flush()
