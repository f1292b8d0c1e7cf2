"""From the arguments of a call to an event: the strict door, identity and context, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import msgspec
from django.db import connections
from django.http import HttpRequest

from pluginhost import door, identity, memo
from pluginhost.context import context_of
from pluginhost.events import Context, Event, Subject, encode, keyed_message_id, new_message_id
from pluginhost.exceptions import InvalidEvent
from pluginhost.options import did_you_mean, listing

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from django.db.models import Model

    from pluginhost.conf import Settings
    from pluginhost.events import EventType
    from pluginhost.registry import Receivers, Registry

Switches = dict[str, bool | dict[str, Any]]


class CommonDetails(TypedDict, total=False):
    """The keyword arguments that every call of the API takes."""

    anonymous_id: Any
    """Who, before a log-in."""
    timestamp: dt.datetime | None
    """When it happened; now unless given."""
    key: str | None
    """What makes the event one: tracked twice with the same name and key, it has one message id."""
    subject: Model | None
    """The saved model instance that it is about."""
    value: float | None
    """How much: a price, a number of things."""
    plugins: Mapping[str, Any] | None
    """Switches or tunes aliases for this event: ``{"piwik": False, "mongo": {"collection": "signups"}}``."""
    using: str | None
    """The database of the outbox; the router's unless given."""


class ClientDetails(TypedDict, total=False):
    """The keyword arguments of ``track_client``; they mean what they mean for ``track``."""

    key: str | None
    value: float | None
    plugins: Mapping[str, Any] | None


class Details(CommonDetails, total=False):
    """And the one that ``alias`` has in its own place."""

    user_id: Any
    """Who, where the source does not say it: text, an integer or a UUID."""


class Who:
    """The source of a call: a request, a user, or nobody."""

    __slots__ = ("request", "user")

    def __init__(self, source: Any) -> None:
        self.request: HttpRequest | None = None
        self.user: Any = None
        if source is None:
            return
        inner = source if isinstance(source, HttpRequest) else identity.unwrapped(source)
        if isinstance(inner, HttpRequest):
            self.request = inner
        elif hasattr(source, "is_authenticated"):
            self.user = source
        else:
            raise InvalidEvent("source", f"is of type {type(source).__name__}; it must be a request, a user or None")


def switches(given: Mapping[str, Any] | None, registry: Registry) -> Switches:
    """Check ``plugins=...`` against the aliases that are enabled and what they let a caller tune."""
    if given is None:
        return {}
    checked: Switches = door.properties("plugins", given, frozenset())
    for alias, tuning in checked.items():
        loaded = registry.plugins.get(alias)
        if loaded is None:
            known = listing(registry.plugins)
            raise InvalidEvent(
                f"plugins.{alias}", f"is no alias. {did_you_mean(alias, registry.plugins)}Enabled are: {known}"
            )
        if isinstance(tuning, bool):
            continue
        if not isinstance(tuning, dict):
            raise InvalidEvent(f"plugins.{alias}", "must be True, False or a dict")
        for name in tuning:
            if name not in loaded.plugin.event_options:
                takes = listing(sorted(loaded.plugin.event_options))
                raise InvalidEvent(f"plugins.{alias}.{name}", f"is no option for an event. It takes: {takes}")
    return checked


def draft(
    who: Who,
    type_: EventType,
    name: Any,
    properties: Mapping[str, Any] | None,
    settings: Settings,
    switched: Switches,
    *,
    previous_id: Any,
    details: Details,
    receivers: Receivers,
) -> tuple[Event, bytes, HttpRequest | None]:
    """The event, its bytes, and the request that is to be asked who it is when the envelope is sealed.

    If there are receivers, it may give the visitor an anonymous id, and the cookies of
    their providers are read. Raises ``InvalidEvent``.
    """
    request = who.request
    name = _name(type_, name, request, settings)
    told = _told(details) if details else NOTHING_TOLD
    # One whom the request knows by now stays, even if it ends with a log-out or with somebody else's log-in.
    user_id = told.user_id or identity.user_id_of(who.user if request is None else identity.known_user(request))
    given = door.properties("traits" if type_ == "identify" else "properties", properties, settings.MASKED_NAMES)
    previous_id = _previous_id(previous_id) if type_ == "alias" else None
    context = Context() if request is None else _context(request, settings)
    # After all that may be refused: it reads cookies.
    browser = _browser(request, told.anonymous_id, settings, receivers)
    event = Event(
        type=type_,
        name=name,
        message_id=new_message_id() if told.key is None else keyed_message_id(name, told.key),
        timestamp=told.timestamp or door.moment("timestamp", None),
        properties=given,
        user_id=user_id,
        anonymous_id=browser.anonymous_id,
        previous_id=previous_id,
        subject=told.subject,
        value=told.value,
        context=context,
        plugins=switched,
        visitor_ids=browser.visitor_ids,
    )
    encoded = _encoded(event)
    if request is not None and browser.new_id is not None:  # one that is refused for its size gives no cookie
        memo.of(request).new_id = browser.new_id
    return event, encoded, request if user_id is None else None


class _Told(msgspec.Struct, frozen=True):
    """What the caller told in keyword arguments, checked and converted."""

    user_id: str | None = None
    anonymous_id: str | None = None
    timestamp: dt.datetime | None = None
    key: str | None = None
    subject: Subject | None = None
    value: int | float | None = None


NOTHING_TOLD = _Told()


def _told(details: Details) -> _Told:
    _check_database(details.get("using"))
    timestamp = details.get("timestamp")
    return _Told(
        user_id=door.identifier("user_id", details.get("user_id")),
        anonymous_id=door.identifier("anonymous_id", details.get("anonymous_id")),
        timestamp=None if timestamp is None else door.moment("timestamp", timestamp),
        key=_key(details.get("key")),
        subject=door.subject("subject", details.get("subject")),
        value=door.number("value", details.get("value")),
    )


class _Browser(msgspec.Struct, frozen=True):
    """What is known of the browser that an event comes from."""

    anonymous_id: str | None
    visitor_ids: dict[str, str]
    new_id: str | None = None
    """The anonymous id, if the event gives it to the browser."""


def _browser(request: HttpRequest | None, given: str | None, settings: Settings, receivers: Receivers) -> _Browser:
    """The ids that the caller and the cookies give: the host's own cookie first, which is made now if it may be."""
    if request is None:
        return _Browser(given, {})
    found = identity.provider_ids(request, receivers.readers)
    # After that, which may take its time: another thread of this request may give an id meanwhile.
    anonymous_id = identity.anonymous_id(request, settings) if given is None else given
    if not receivers.lanes:
        return _Browser(anonymous_id, {})
    visitor_ids = {alias: ids.visitor for alias, ids in found.items() if ids.visitor}
    if anonymous_id is not None:
        return _Browser(anonymous_id, visitor_ids)
    new_id = identity.new_id(request, settings) if receivers.personal else None
    return _Browser(new_id or identity.first(found), visitor_ids, new_id)


def _name(type_: EventType, given: Any, request: HttpRequest | None, settings: Settings) -> str:
    """The event's name. A page without a title is named by its path."""
    if type_ == "page" and given is None and request is not None:
        given = (_context(request, settings).path or "/")[: door.MAX_NAME]
    return door.event_name("name", given)


def _previous_id(given: Any) -> str:
    previous_id = door.identifier("previous_id", given)
    if previous_id is None:
        raise InvalidEvent("previous_id", "is missing: an alias makes two ids one person")
    return previous_id


def client_draft(
    name: Any, properties: Mapping[str, Any] | None, settings: Settings, switched: Switches, details: ClientDetails
) -> tuple[Event, bytes]:
    """An event for the browser to send, and its bytes. Who and where is the browser's to know.

    Raises ``InvalidEvent``.
    """
    name = door.event_name("name", name)
    key = _key(details.get("key"))
    event = Event(
        type="track",
        name=name,
        message_id=new_message_id() if key is None else keyed_message_id(name, key),
        timestamp=door.moment("timestamp", None),
        properties=door.properties("properties", properties, settings.MASKED_NAMES),
        value=door.number("value", details.get("value")),
        plugins=switched,
    )
    return event, _encoded(event)


def _encoded(event: Event) -> bytes:
    encoded = encode(event)
    if len(encoded) > door.MAX_BYTES:
        raise InvalidEvent("event", f"has {len(encoded)} bytes; {door.MAX_BYTES} are allowed")
    return encoded


def _check_database(using: Any) -> None:
    if using is not None and using not in connections.settings:
        raise InvalidEvent("using", f"is no database. There are: {listing(connections.settings)}")


def _key(key: Any) -> str | None:
    if key is None:
        return None
    if not isinstance(key, str) or not key:
        raise InvalidEvent("key", "must be a string that is not empty")
    return door.plain("key", key)


def _context(request: HttpRequest, settings: Settings) -> Context:
    """The context of a request, made once and remembered until the URL is resolved."""
    memory = memo.of(request)
    if memory.context is None or memory.context[0] is not request.resolver_match:
        memory.context = request.resolver_match, context_of(request, settings)
    return memory.context[1]
