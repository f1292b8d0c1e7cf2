"""``host``: the one object that views call, and the only code that calls hooks for them."""

from __future__ import annotations

import asyncio
import logging
from functools import cache
from typing import TYPE_CHECKING, Any, Unpack

from asgiref.sync import sync_to_async
from django.db import router

from pluginhost import accepting, buffer, conf, counts, rendering
from pluginhost.db import harmless
from pluginhost.delivery import transport
from pluginhost.delivery.envelopes import pack
from pluginhost.dispatch import in_event_loop
from pluginhost.drafting import ClientDetails, CommonDetails, Details
from pluginhost.exceptions import AsyncContextError
from pluginhost.registry import get_registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.models import Model
    from django.http import HttpRequest
    from django.utils.safestring import SafeString

    from pluginhost.delivery import Transport
    from pluginhost.events import EventType
    from pluginhost.html import Place
    from pluginhost.registry import Registry

logger = logging.getLogger("pluginhost")


class Host:
    """Accepts events and hands them to the transport; renders what plugins add to a page.

    Every call that accepts an event returns its ``message_id``, or None if nothing
    was accepted: tracking is off, a filter objects, no enabled plugin takes such an
    event, or the input is bad. Bad input raises ``InvalidEvent`` when the project
    is ``STRICT`` and is logged otherwise, and so does a call that would block an
    event loop, with ``AsyncContextError``. A wrong setting raises
    ``ConfigurationError``, an unknown keyword ``TypeError``; nothing else is raised.
    """

    def __init__(self) -> None:
        self._background: set[asyncio.Task[Any]] = set()

    @property
    def registry(self) -> Registry:
        """The loaded plugins. Raises ``ConfigurationError`` if one of them could not be loaded."""
        return get_registry()

    @property
    def counts(self) -> dict[str, int]:
        """What this process accepted (past the broker: spilled), filtered, found invalid or lost so far."""
        return counts.snapshot()

    def anonymous_id(self, request: HttpRequest) -> str | None:
        """The anonymous id that events of this request carry, or None if the browser has none.

        Of the host's own cookie, else of the cookie of a provider that the filters let
        through. None also where no plugin may have an event, and for what is no request.
        """
        with harmless():
            return accepting.anonymous_id(request, self.registry, conf.get_settings())

    def database(self, using: str | None = None) -> str:
        """The database that events of this thread go to: ``using``, or the router's."""
        return using or router.db_for_write(_model())

    # --- tracking ---

    def track(
        self,
        source: Any,
        name: str,
        properties: Mapping[str, Any] | None = None,
        **details: Unpack[Details],
    ) -> str | None:
        """Track that ``name`` happened. ``source`` is a request, a user or None."""
        return self._accept("track", source, name, properties, details)

    def page(
        self,
        source: Any,
        title: str | None = None,
        properties: Mapping[str, Any] | None = None,
        **details: Unpack[Details],
    ) -> str | None:
        """Track a page view. Without a title it is named by its path."""
        return self._accept("page", source, title, properties, details)

    def identify(self, source: Any, traits: Mapping[str, Any] | None = None, **details: Unpack[Details]) -> str | None:
        """Tell the plugins what is known about a person."""
        return self._accept("identify", source, "identify", traits, details)

    def alias(self, source: Any, previous_id: Any, user_id: Any = None, **details: Unpack[CommonDetails]) -> str | None:
        """Tell the plugins that ``previous_id`` and ``user_id`` (or the source's user) are one person."""
        return self._accept("alias", source, "alias", None, {**details, "user_id": user_id}, previous_id)

    def batch(self, using: str | None = None) -> buffer.Block:
        """A block whose events become one envelope and one INSERT at its end.

        Also ``async with``. More than 500 events, or 1 MiB of them, become several
        envelopes. Inside a transaction begun within the block, and after a savepoint
        within it, each event is inserted at once, so that a rollback takes it back.
        """
        return buffer.Block(self.send, lambda: self.database(using))

    def track_client(
        self,
        request: HttpRequest,
        name: str,
        properties: Mapping[str, Any] | None = None,
        **details: Unpack[ClientDetails],
    ) -> str | None:
        """Let the browser send an event, from this page or the next one that is rendered.

        It waits in the session, at most 20 of them or 2 KB, so it survives a redirect.
        Each plugin that has a snippet, and that the filters let through now and then,
        sends it in its own way.
        """
        if unknown := details.keys() - ClientDetails.__optional_keys__:
            raise TypeError(f"unexpected keyword arguments: {', '.join(sorted(unknown))}")
        settings = conf.get_settings()
        if not settings.ENABLED:
            return None
        registry = self.registry
        try:
            with harmless():
                return accepting.let_wait(settings, registry, request, name, properties, details)
        except Exception as error:
            accepting.refuse(name, error, settings)
        return None

    def render(self, request: HttpRequest, place: Place = "head") -> SafeString:
        """What the plugins that the filters let through add to the page at this place."""
        return rendering.render(request, place, self.registry, conf.get_settings())

    # --- the same for async code ---

    async def atrack(
        self,
        source: Any,
        name: str,
        properties: Mapping[str, Any] | None = None,
        **details: Unpack[Details],
    ) -> str | None:
        return await sync_to_async(self.track)(source, name, properties, **details)

    async def apage(
        self,
        source: Any,
        title: str | None = None,
        properties: Mapping[str, Any] | None = None,
        **details: Unpack[Details],
    ) -> str | None:
        return await sync_to_async(self.page)(source, title, properties, **details)

    async def aidentify(
        self, source: Any, traits: Mapping[str, Any] | None = None, **details: Unpack[Details]
    ) -> str | None:
        return await sync_to_async(self.identify)(source, traits, **details)

    async def aalias(
        self, source: Any, previous_id: Any, user_id: Any = None, **details: Unpack[CommonDetails]
    ) -> str | None:
        return await sync_to_async(self.alias)(source, previous_id, user_id, **details)

    def abatch(self, using: str | None = None) -> buffer.Block:
        return buffer.Block(self.send, lambda: self.database(using))

    async def atrack_client(
        self,
        request: HttpRequest,
        name: str,
        properties: Mapping[str, Any] | None = None,
        **details: Unpack[ClientDetails],
    ) -> str | None:
        return await sync_to_async(self.track_client)(request, name, properties, **details)

    async def arender(self, request: HttpRequest, place: Place = "head") -> SafeString:
        return await sync_to_async(self.render)(request, place)

    # --- how an event is accepted ---

    def _accept(
        self,
        type_: EventType,
        source: Any,
        name: Any,
        properties: Mapping[str, Any] | None,
        details: Details,
        previous_id: Any = None,
    ) -> str | None:
        if details and (unknown := details.keys() - Details.__optional_keys__):
            raise TypeError(f"unexpected keyword arguments: {', '.join(sorted(unknown))}")
        settings = conf.get_settings()
        if not settings.ENABLED:
            return None
        registry = get_registry(settings)
        try:
            with harmless():
                pending = accepting.draft_event(
                    settings, registry, type_, source, name, properties, details, previous_id
                )
        except Exception as error:
            accepting.refuse(name, error, settings)
            return None
        if pending is None:
            return None
        return pending.event.message_id if self._placed(pending, details.get("using"), settings) else None

    def _placed(self, pending: buffer.Pending, using: str | None, settings: conf.Settings) -> bool:
        """Place the event; a database that does not exist, or a router that raises, breaks no page."""
        try:
            return self._place(pending, self.database(using), settings)
        except Exception:
            counts.count("lost")
            if settings.STRICT:
                raise
            logger.exception("event %s is lost", pending.event.message_id)
            return False

    def _place(self, pending: buffer.Pending, using: str, settings: conf.Settings) -> bool:
        """Let the event wait in the innermost block that it may wait in, else send it at once."""
        waiting = buffer.current.get()
        while waiting is not None:
            if waiting.accepts(using) and waiting.add(pending, using):
                return True
            waiting = waiting.outer
        return self._send([pending], using, settings)

    def send(self, pending: list[buffer.Pending], using: str) -> bool:
        """Seal the events and give them to the transport; False if they are lost."""
        return self._send(pending, using, conf.get_settings())

    def _send(self, pending: list[buffer.Pending], using: str, settings: conf.Settings) -> bool:
        chosen = transport(settings.TRANSPORT)
        if not (chosen.uses_database and in_event_loop()):
            return self._put(chosen, pending, using)
        if settings.STRICT:
            raise AsyncContextError(
                "a synchronous call in an event loop, with no middleware to wait in: use the a-twin"
                " (host.atrack, async with host.abatch()), or add pluginhost.middleware.TrackerMiddleware"
            )
        # Nothing is lost for it: the insert runs in a thread, though no caller waits for it.
        task = asyncio.ensure_future(sync_to_async(self._put)(chosen, pending, using))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return True

    def _put(self, chosen: Transport, pending: list[buffer.Pending], using: str) -> bool:
        sealed = [parts for item in pending if (parts := item.sealed()).lanes]
        if len(sealed) < len(pending):
            counts.count("filtered", len(pending) - len(sealed))
            if not sealed:
                return False
        try:
            accepted = chosen.put(pack(sealed), using)
        except Exception:
            logger.exception("%d events are lost: they could not be handed over", len(sealed))
            accepted = False
        counts.count("accepted" if accepted else "lost", len(sealed))
        return accepted


@cache
def _model() -> type[Model]:
    from pluginhost.models import Envelope  # models can't be imported before the apps are ready

    return Envelope


#: The host of this process.
host = Host()
