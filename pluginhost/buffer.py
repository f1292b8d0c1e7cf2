"""Where events wait for the end of a request or of ``host.batch()``, and when they must not.

There is no process-wide buffer: an event waits in memory only where the flush is
certain, and never inside a transaction that the block did not begin in, because
only the database knows what a rollback takes back.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from asgiref.sync import sync_to_async
from django.db import connections

from pluginhost import filtering, identity, memo
from pluginhost.conf import get_settings
from pluginhost.db import harmless, is_open
from pluginhost.delivery.envelopes import MAX_EVENTS
from pluginhost.dispatch import in_event_loop
from pluginhost.events import encode
from pluginhost.registry import get_registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from django.http import HttpRequest

    from pluginhost.events import Event

logger = logging.getLogger("pluginhost")

current: ContextVar[Buffer | None] = ContextVar("pluginhost_buffer", default=None)


class Sealed(NamedTuple):
    """What of an event is stored."""

    lanes: tuple[str, ...]
    encoded: bytes


class Pending(msgspec.Struct, frozen=True):
    """An accepted event that is not sealed yet."""

    lanes: tuple[str, ...]
    event: Event
    encoded: bytes
    request: HttpRequest | None
    """Asked who it is when the envelope is sealed; None if that is settled."""

    def sealed(self) -> Sealed:
        """The lanes and the final bytes: a log-in between the call and the seal counts.

        The filters are asked about the user who has become known, so that there may be
        no lane left.
        """
        user_id = self._user_id()
        if user_id is None:
            return Sealed(self.lanes, self.encoded)
        lanes = self._lanes_still_allowed()
        event = msgspec.structs.replace(self.event, user_id=user_id)
        return Sealed(lanes, encode(event if lanes == self.lanes else self._without_others(event, lanes)))

    def _user_id(self) -> str | None:
        """Who it was, if that was open at the call. Whom a log-out has ended is nobody's to be."""
        if self.request is None or memo.of(self.request).signed_out is not None:
            return None
        believe_session = not get_registry().filters_ask_about_users
        try:
            with harmless():
                return identity.resolve(self.request, get_settings(), believe_session=believe_session)
        except Exception:  # the site's session store, say; the event goes without its user
            logger.exception("event %s: the user could not be found out", self.event.message_id)
            return None

    def _without_others(self, event: Event, lanes: tuple[str, ...]) -> Event:
        """The event without what the cookies of providers said that may not have it after all."""
        assert self.request is not None
        ids = memo.of(self.request).provider_ids
        others = {ids[alias].anonymous for alias in self.lanes if alias in ids and alias not in lanes}
        return msgspec.structs.replace(
            event,
            anonymous_id=None if event.anonymous_id in others else event.anonymous_id,
            visitor_ids={alias: id_ for alias, id_ in event.visitor_ids.items() if alias in lanes},
        )

    def _lanes_still_allowed(self) -> tuple[str, ...]:
        registry = get_registry()
        if not registry.filters:
            return self.lanes
        answer = filtering.verdict(registry.filters, self.request, None)
        return tuple(lane for lane in self.lanes if answer.allows(registry.runners[lane].plugin.purpose))


def _innermost() -> Buffer | None:
    """The innermost open buffer. An abandoned generator can leave closed ones behind in its consumer's context."""
    found = current.get()
    while found is not None and not (found.is_open and found.is_ours):
        found = found.outer
    return found


class Buffer:
    """Events of one block. It becomes the innermost one at once, and stops being it in ``leave``.

    It is of the process that began it. What was pending at a fork is sent by the
    parent alone, and the child lets nothing wait there: it may end without ever
    leaving the block, as those of ``multiprocessing`` do.
    """

    def __init__(self, send: Callable[[list[Pending], str], bool], using: str | None = None) -> None:
        self.outer = _innermost()
        self._send = send
        self.using = using
        """The only database that this buffer is for; None: any, outside of transactions."""
        self._pending: dict[str, list[Pending]] = {}
        self._process = os.getpid()
        self.is_open = True
        self._lock = Lock()
        """A thread that outlives its request may add while the request ends."""
        self._savepoints: int | None = None
        if using is not None and connections[using].in_atomic_block:
            self._savepoints = connections[using].savepoint_state
        self._token = current.set(self)

    @property
    def is_ours(self) -> bool:
        """Whether this process began the block. If not, its lock may be held for ever by a thread that is not here."""
        return self._process == os.getpid()

    def accepts(self, using: str) -> bool:
        """Whether an event for this database may wait here.

        Inside a transaction it may if the block began in that transaction, and no
        savepoint was made since: what a savepoint takes back must be in the
        database by then. With autocommit off it may not, as nobody says when a
        transaction ends.
        """
        if not self.is_open or self.using not in (None, using) or not self.is_ours:
            return False
        connection = connections[using]
        if not is_open(connection):
            return True
        return connection.in_atomic_block and connection.savepoint_state == self._savepoints

    def add(self, pending: Pending, using: str) -> bool:
        """Let the event wait; False if the block has ended meanwhile."""
        with self._lock:
            if not self.is_open:
                return False
            waiting = self._pending.setdefault(using, [])
            waiting.append(pending)
        # In an event loop nothing can be inserted; the end of the block makes several envelopes of it.
        if len(waiting) == MAX_EVENTS and not in_event_loop():
            self.flush()
        return True

    def __bool__(self) -> bool:
        return bool(self._pending) and self.is_ours

    def flush(self) -> None:
        if not self.is_ours:
            return
        with self._lock:
            pending, self._pending = self._pending, {}
        for using, waiting in pending.items():
            self._send(waiting, using)

    def leave(self) -> None:
        """Take nothing more: what a streamed response tracks later is sent at once."""
        with self._lock if self.is_ours else nullcontext():
            self.is_open = False
        # An asynchronous generator that is abandoned ends in another context, where nothing was set.
        with suppress(ValueError):
            current.reset(self._token)

    def close(self) -> None:
        self.leave()
        self.flush()

    async def aclose(self) -> None:
        """The same in an event loop. The flush goes on even if the caller is cancelled meanwhile."""
        self.leave()
        if self:
            flush = asyncio.ensure_future(sync_to_async(self.flush)())
            _flushing.add(flush)
            flush.add_done_callback(_flushing.discard)
            await asyncio.shield(flush)


#: Keeps flushes alive that nobody waits for any more.
_flushing: set[asyncio.Future[None]] = set()


class Block:
    """What ``host.batch()`` gives: ``with`` or ``async with``.

    A block within a block on the same database is part of the outer one.
    """

    def __init__(self, send: Callable[[list[Pending], str], bool], database: Callable[[], str]) -> None:
        self._send = send
        self._database = database
        self._entered: list[Buffer | None] = []

    def __enter__(self) -> None:
        try:
            using = self._database()
        except Exception:  # a router that raises: each event in the block finds out for itself
            if get_settings().STRICT:
                raise
            self._entered.append(None)
            return
        outer = _innermost()
        joined = outer is not None and outer.using == using and outer.accepts(using)
        self._entered.append(None if joined else Buffer(self._send, using))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (entered := self._entered.pop()) is not None:
            entered.close()

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (entered := self._entered.pop()) is not None:
            await entered.aclose()
