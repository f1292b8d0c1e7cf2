"""What a call of the API comes to: an event and its lanes, one that waits for a page, or a refusal."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django.core.exceptions import SynchronousOnlyOperation
from django.http import HttpRequest

from pluginhost import client, counts, door, filtering, identity
from pluginhost.buffer import Pending
from pluginhost.dispatch import inside_hook
from pluginhost.drafting import Who, client_draft, draft, switches
from pluginhost.exceptions import AsyncContextError, InvalidEvent
from pluginhost.registry import Receivers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pluginhost.conf import Settings
    from pluginhost.drafting import ClientDetails, Details, Switches
    from pluginhost.events import EventType
    from pluginhost.filtering import Verdict
    from pluginhost.plugin import Plugin
    from pluginhost.registry import Registry

logger = logging.getLogger("pluginhost")

#: Answers of filters whose receivers are remembered. There are as many as combinations of purposes.
MAX_REMEMBERED = 1024


def draft_event(
    settings: Settings,
    registry: Registry,
    type_: EventType,
    source: Any,
    name: Any,
    properties: Mapping[str, Any] | None,
    details: Details,
    previous_id: Any,
) -> Pending | None:
    """The event with its lanes, or None if no plugin is to have it. Raises ``InvalidEvent``."""
    if alias := inside_hook():
        raise InvalidEvent("host", f"called from within a hook of {alias!r}; hooks do not track")
    who = Who(source)
    switched = switches(details.get("plugins"), registry)
    answer = filtering.verdict(registry.filters, who.request, who.user)
    receivers = _receivers(registry, type_, answer, switched)
    event, encoded, request = draft(
        who,
        type_,
        name,
        properties,
        settings,
        switched,
        previous_id=previous_id,
        details=details,
        receivers=receivers,
    )
    if not receivers.lanes:
        counts.count("filtered")
        return None
    return Pending(receivers.lanes, event, encoded, request)


def anonymous_id(source: Any, registry: Registry, settings: Settings) -> str | None:
    """What a track event of this request would carry, if any plugin is to have one. Makes no id."""
    request = identity.unwrapped(source)
    if not isinstance(request, HttpRequest):
        return None
    answer = filtering.verdict(registry.filters, request, None)
    receivers = _receivers(registry, "track", answer, {})
    if not receivers.lanes:
        return None
    found = identity.provider_ids(request, receivers.readers)
    return identity.anonymous_id(request, settings) or identity.first(found)


def _receivers(registry: Registry, type_: EventType, answer: Verdict, switched: Switches) -> Receivers:
    """The plugins that an event goes to, in the order of the setting."""
    key = type_, answer.allowed
    if switched or (found := registry.receivers.get(key)) is None:
        plugins = (runner.plugin for runner in registry.runners.values())
        found = Receivers.of(plugin for plugin in plugins if _may_have(plugin, type_, answer, switched))
        if not switched and len(registry.receivers) < MAX_REMEMBERED:
            registry.receivers[key] = found
    return found


def _may_have(plugin: Plugin, type_: EventType, answer: Verdict, switched: Switches) -> bool:
    return type_ in plugin.event_types and switched.get(plugin.alias) is not False and answer.allows(plugin.purpose)


def let_wait(
    settings: Settings,
    registry: Registry,
    source: Any,
    name: Any,
    properties: Mapping[str, Any] | None,
    details: ClientDetails,
) -> str | None:
    """Put an event for the browser into the session, unless no snippet may have it.

    Raises ``InvalidEvent``, ``AsyncContextError``, and what the session raises.
    """
    request = Who(source).request
    if request is None:
        raise InvalidEvent("request", f"is of type {type(source).__name__}; it must be a request")
    switched = switches(details.get("plugins"), registry)
    answer = filtering.verdict(registry.filters, request, None)
    plugins = (renderer.plugin for renderer in registry.renderers)
    aliases = tuple(plugin.alias for plugin in plugins if _may_have(plugin, "track", answer, switched))
    event, encoded = client_draft(name, properties, settings, switched, details)
    if not aliases:
        counts.count("filtered")
        return None
    try:
        client.keep(request, aliases, event, encoded)
    except SynchronousOnlyOperation as error:
        raise AsyncContextError("the session can't be read in an event loop: use atrack_client") from error
    counts.count("accepted")
    return event.message_id


def refuse(name: Any, error: Exception, settings: Settings) -> None:
    """Count an event that is none. Raises ``InvalidEvent`` if the project is strict, else logs it."""
    counts.count("invalid")
    if settings.STRICT and isinstance(error, (InvalidEvent, AsyncContextError)):
        raise error
    # Beside these: a model or a user of the caller's that raises.
    invalid = error if isinstance(error, InvalidEvent) else InvalidEvent("event", f"raised {door.shown(error)}")
    if settings.STRICT:
        raise invalid from error
    # The path says it all of bad input; a visitor may have written it.
    logger.error("event %s refused: %s", door.shown(name), invalid, exc_info=None if invalid is error else error)
