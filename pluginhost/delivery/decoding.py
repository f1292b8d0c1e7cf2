"""What a lane reads of a payload: the events, as far as its plugin looks at them."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import msgspec

from pluginhost.delivery.envelopes import UNREADABLE, unpack
from pluginhost.events import Context, Event

#: What a plugin may leave unread: most of an event's bytes are here. Name -> type and default.
LARGE: dict[str, tuple[Any, Any]] = {"properties": (dict[str, Any], {}), "context": (Context, Context())}
#: The versions whose payload is an array of events, whole ones or null.
ARRAYS = frozenset({1})


class Decoded(NamedTuple):
    """The events of a payload in their order; None where one was erased, or can't be read."""

    events: list[Event | None]
    problems: dict[int, str]
    """Position -> why an event can't be read."""


@cache
def _decoder(unread: frozenset[str]) -> msgspec.json.Decoder[list[Event | None]]:
    """Decodes an array of events. What is left unread has another name here, so that JSON's is passed over."""
    if not unread:
        return msgspec.json.Decoder(list[Event | None])
    fields = [(name, *LARGE[name]) for name in sorted(unread)]
    names = {name: f"{name} (unread)" for name in unread}
    part = msgspec.defstruct("Event", fields, bases=(Event,), frozen=True, kw_only=True, rename=names)
    return msgspec.json.Decoder(list[part | None])  # type: ignore[valid-type]


def decode(version: int, payload: bytes, unread: frozenset[str] = frozenset()) -> Decoded:
    """The events of a payload. Raises ``ValueError`` if the payload as a whole is damaged.

    ``unread`` are the fields, of those in ``LARGE``, that are left at their defaults. That
    takes a quarter of the time of reading all.
    """
    if version in ARRAYS:
        try:
            return Decoded(_decoder(unread).decode(payload), {})  # in one call; one by one it takes longer
        except UNREADABLE:
            pass  # one of them, or all
    stored = unpack(version, payload)
    problems = {place: one.problem for place, one in enumerate(stored) if one.event is None and not one.erased}
    return Decoded([one.event for one in stored], problems)
