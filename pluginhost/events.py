"""What travels: an event, its context, and the batch that a worker hands over.

The types are msgspec structs: they are encoded once, when an event is accepted,
and decoded once a lane. A field added later needs a default, so that stored
events stay readable.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from os import urandom
from time import time_ns
from typing import Any, Literal, overload

import msgspec

EventType = Literal["track", "page", "identify", "alias"]

#: The namespace of the message ids made of a key; changing it would break every promise of "once".
KEY_NAMESPACE = uuid.UUID("5f1d6c0a-0a54-5b0e-9d4e-5b7c3f9a1f55")


class Subject(msgspec.Struct, frozen=True, omit_defaults=True):
    """The model instance that an event is about."""

    model: str
    """The model's label, such as ``shop.Product``."""
    pk: str
    """Its primary key as text: an integer, a UUID or any other text."""


class Context(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where it happened: what was copied from the request, scrubbed before it is stored."""

    ip: str | None = None
    """The visitor's address, shortened to /24 or /48 unless the project says otherwise."""
    user_agent: str | None = None
    language: str | None = None
    """The header Accept-Language."""
    method: str | None = None
    url: str | None = None
    """Scheme, host, path and the allowed part of the query string."""
    path: str | None = None
    referrer: str | None = None
    route: str | None = None
    """The name of the URL pattern, such as ``shop:product``."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened."""

    type: EventType
    name: str
    message_id: str
    """A UUID: version 7, or version 5 when the event was tracked with a key."""
    timestamp: datetime
    """When it happened, in UTC."""
    properties: dict[str, Any] = {}
    """What JSON can hold; the traits, if the type is identify."""
    user_id: str | None = None
    anonymous_id: str | None = None
    previous_id: str | None = None
    """The other id of the same person, if the type is alias."""
    subject: Subject | None = None
    value: int | float | None = None
    context: Context = Context()
    plugins: dict[str, bool | dict[str, Any]] = {}
    """What the caller switched or tuned for single aliases."""
    visitor_ids: dict[str, str] = {}
    """Alias -> the id that its provider's own cookie gave the browser."""

    def tuning(self, alias: str) -> dict[str, Any]:
        """What the caller tuned for this alias: ``plugins={"mongo": {"collection": "signups"}}``."""
        tuning = self.plugins.get(alias)
        return tuning if isinstance(tuning, dict) else {}


class Batch(Sequence[Event]):
    """The events that a worker hands to one plugin at a time."""

    __slots__ = ("attempt", "events")

    def __init__(self, events: Sequence[Event], *, attempt: int = 1) -> None:
        self.events = tuple(events)
        self.attempt = attempt
        """1 at first, more after a failure."""

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> Batch: ...
    def __getitem__(self, index: int | slice) -> Event | Batch:
        if isinstance(index, slice):
            return Batch(self.events[index], attempt=self.attempt)
        return self.events[index]

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)  # a Sequence's own asks for one index after the other

    def __repr__(self) -> str:
        return f"<Batch of {len(self.events)}, attempt {self.attempt}>"


#: The digit that says by which standard the id was made, with two random bits, for each random digit.
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


def new_message_id() -> str:
    """A UUIDv7 (RFC 9562, 5.7) as text: 48 bits of Unix time in milliseconds, 74 random bits.

    The random part comes from the kernel at each call, never from a generator in
    this process: after a fork two generators in the same state would give two
    events one id, and a receiver that recognises ids would drop one of them.
    """
    time, random = f"{time_ns() // 1_000_000:012x}", urandom(10).hex()
    return f"{time[:8]}-{time[8:]}-7{random[:3]}-{_VARIANT[random[3]]}{random[4:7]}-{random[7:19]}"


def uuid7() -> str:
    """The same as 32 digits."""
    return new_message_id().replace("-", "")


def keyed_message_id(name: str, key: str) -> str:
    """The UUIDv5 of a name and a key: the same thing tracked twice is one thing."""
    return str(uuid.uuid5(KEY_NAMESPACE, f"{name}\0{key}"))


def sample_event(name: str = "pluginhost test") -> Event:
    """An event for trying a plugin out: of now, of nobody in particular, with a message id of its own."""
    return Event(
        type="track",
        name=name,
        message_id=new_message_id(),
        timestamp=datetime.now(UTC),
        properties={"test": True},
        anonymous_id="pluginhost-test",
    )


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Event).decode
