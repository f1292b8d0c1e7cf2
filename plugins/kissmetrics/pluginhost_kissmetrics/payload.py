"""From an event to a call of KISSmetrics' API. Pure: no network, no options but those given.

Paths, parameters and limits: KISSmetrics, "HTTP API", "Events, Properties and
Values" (support.kissmetrics.io, 2026).
"""

from __future__ import annotations

import math
import re
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode

from pluginhost import PermanentError, SkipEvent
from pluginhost_kissmetrics import identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pluginhost import Event

MAX_NAME = 255
MAX_VALUE = 512
#: Bytes of a query string; what is longer goes as a form. Servers and proxies take at least so much.
MAX_QUERY = 2048
#: 2009-01-01: KISSmetrics keeps nothing from before that.
EARLIEST = 1230768000

#: Names that begin with an underscore are the protocol's.
_RESERVED = re.compile(r"^[\s_]+")


class Call(NamedTuple):
    """One call of the API, before it has a key and a time."""

    path: str
    """``/e`` records an event, ``/s`` sets properties of a person, ``/a`` makes two ids one person."""
    person: str
    name: str = ""
    """The event's name, or the other id."""
    properties: Mapping[str, str] = {}


def call(event: Event, alias: str, *, page_event: str | None = None, value_property: str | None = None) -> Call:
    """The call for an event. Raises ``SkipEvent`` if there is nothing to say, ``PermanentError`` for bad tuning.

    ``page_event`` is the name under which page views are recorded; ``value_property``
    that of the property which holds ``event.value``.
    """
    if event.type == "alias":
        return _alias(event)
    person = identity.person(event, alias)
    if person is None:
        raise SkipEvent("no person")
    if event.type == "identify":
        properties = flat(event.properties)
        if not properties:
            raise SkipEvent("no traits")
        return Call("/s", person, properties=properties)
    if event.type == "page":
        if page_event is None:
            raise SkipEvent("page views are not recorded")
        return Call("/e", person, page_event, flat({**_page(event), **event.properties}))
    return Call("/e", person, event_name(event), properties_of(event, alias, value_property))


def event_name(event: Event) -> str:
    return event.name.strip()[:MAX_NAME].strip()


def _page(event: Event) -> dict[str, Any]:
    """What KISSmetrics' own script says of a page view, in its words."""
    context = event.context
    return {
        "Viewed URL": context.url or context.path,
        "Referrer": context.referrer,
        "Title": event.name if event.name != context.path else None,
    }


def _alias(event: Event) -> Call:
    """Only two ids that were both named by the caller: a merge cannot be undone."""
    if not event.previous_id or not event.user_id:
        raise SkipEvent("an alias needs two ids, one is missing")
    previous, current = identity.usable(event.previous_id), identity.usable(event.user_id)
    if previous is None or current is None:
        raise PermanentError("an alias needs the ids of two persons; one of these stands for nobody or is too long")
    if identity.plain(previous) == identity.plain(current):
        raise SkipEvent("both ids are the same")
    return Call("/a", previous, current)


def properties_of(event: Event, alias: str, value_property: str | None) -> dict[str, str]:
    """The properties of a track event, with its value. Raises ``PermanentError`` for a bad ``value_as``."""
    properties = flat(event.properties)
    name = event.tuning(alias).get("value_as", value_property)
    if event.value is None or name is None:
        return properties
    if not isinstance(name, str) or not property_name(name):
        raise PermanentError(f"value_as is {name!r:.100}, which is no name for a property")
    known = {each.lower() for each in properties}  # the receiver does not tell "Value" and "value" apart
    if property_name(name).lower() not in known:
        properties.update(flat({name: event.value}))
    return properties


def flat(properties: Mapping[str, Any]) -> dict[str, str]:
    """Properties as KISSmetrics has them: one level, texts, within its limits.

    ``{"a": {"b": 1}}`` becomes ``a.b``, a list one text with commas. Left out: None,
    empty texts, and objects within lists. Where two become one name, that which had
    it from the start stays.
    """
    found: dict[str, str] = {}
    renamed: dict[str, str] = {}
    for given, value in _leaves(properties, ""):
        name, text = property_name(given), _text(value)[:MAX_VALUE]
        if name and text:
            (found if name == given else renamed).setdefault(name, text)
    return {**renamed, **found}


def property_name(name: str) -> str:
    """``name`` without spaces around it and underscores before it, 255 characters at most; perhaps empty."""
    return _RESERVED.sub("", name)[:MAX_NAME].strip()


def _leaves(properties: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in properties.items():
        path = f"{prefix}.{name}" if prefix and name else prefix or name
        if isinstance(value, dict):
            yield from _leaves(value, path)
        else:
            yield path, value


def _text(value: Any) -> str:
    if value is None or isinstance(value, dict):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list):
        return ",".join(filter(None, map(_text, value)))
    return str(value)


def _number(value: float) -> str:
    """Digits and a point, never an exponent: otherwise KISSmetrics takes it for text and has no sums."""
    if not math.isfinite(value):
        return ""
    if value.is_integer():
        return str(int(value))
    return f"{Decimal(repr(value)):f}"


def moment(event: Event) -> int:
    """The event's own time in whole Unix seconds, now if that is to come.

    What is dated ahead, by a wrong clock or milliseconds taken for seconds, would be
    missing in every report until then. Raises ``PermanentError`` for what KISSmetrics
    would drop.
    """
    second = math.floor(event.timestamp.timestamp())
    if second < EARLIEST:
        raise PermanentError("KISSmetrics keeps nothing that happened before 2009")
    return min(second, math.floor(time.time()))


def parameters(made: Call, api_key: str, second: int) -> dict[str, str]:
    """What is sent. The protocol's own come first, and no property replaces them.

    The time is always the event's own, with ``_d=1`` to say that it counts: a repeat
    is then recognised.
    """
    sent = {"_k": api_key, "_p": made.person}
    if made.name:
        sent["_n"] = made.name
    sent |= {"_t": str(second), "_d": "1"}
    return {**sent, **{name: value for name, value in made.properties.items() if name not in sent}}


def query(sent: Mapping[str, str]) -> str:
    """The parameters percent-encoded, as UTF-8."""
    return urlencode(sent, quote_via=quote, safe="")
