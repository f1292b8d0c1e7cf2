"""Packs accepted events into envelopes, and reads them again, whatever version wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from pluginhost.events import Event, decode, uuid7

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: The version that this code writes. A reader of every older one stays in ``_READERS``.
VERSION = 1
MAX_EVENTS = 500
MAX_BYTES = 1024 * 1024
#: Stands in a payload where an event of a forgotten person was, so that the others keep their places.
ERASED = b"null"


class Envelope(msgspec.Struct, frozen=True):
    """Events of one flush that go to the same lanes, ready to be stored."""

    envelope_id: str
    """A UUID as 32 digits, which every database takes for one."""
    lanes: tuple[str, ...]
    n: int
    payload: bytes


class Stored(NamedTuple):
    """One event as it was stored; ``event`` is None if it can't be read, and ``problem`` says why."""

    raw: bytes
    event: Event | None
    problem: str = ""

    @property
    def erased(self) -> bool:
        """Whether it was an event of a person who has been forgotten."""
        return self.raw == ERASED


#: What is read of an event that was erased.
GONE = Stored(ERASED, None, "erased: it was of a person who has been forgotten")


def pack(events: Iterable[tuple[tuple[str, ...], bytes]]) -> list[Envelope]:
    """Group encoded events by lanes, in their order, at most 500 events or 1 MiB an envelope."""
    groups: dict[tuple[str, ...], list[bytes]] = {}
    for lanes, encoded in events:
        groups.setdefault(lanes, []).append(encoded)
    return [_envelope(lanes, part) for lanes, group in groups.items() for part in _parts(group)]


def _parts(group: list[bytes]) -> list[list[bytes]]:
    """What goes into one envelope each."""
    if len(group) <= MAX_EVENTS and sum(map(len, group)) + len(group) <= MAX_BYTES:
        return [group]
    parts: list[list[bytes]] = [[]]
    size = 0
    for encoded in group:
        if parts[-1] and (len(parts[-1]) == MAX_EVENTS or size + len(encoded) > MAX_BYTES):
            parts.append([])
            size = 0
        parts[-1].append(encoded)
        size += len(encoded) + 1
    return parts


def _envelope(lanes: tuple[str, ...], group: Sequence[bytes]) -> Envelope:
    # In the order of time, so that the index grows at its end however long it is.
    return Envelope(uuid7(), lanes, len(group), join(group))


def join(encoded: Iterable[bytes]) -> bytes:
    """Encoded events as one payload: a JSON array."""
    return b"[" + b",".join(encoded) + b"]"


def merge(payloads: Iterable[bytes]) -> bytes:
    """Several payloads as one, without decoding them."""
    return join(payload[1:-1] for payload in payloads)


#: What bytes that are no JSON make msgspec raise; the second one if they begin with very many brackets, the third one
#: if a text is no UTF-8.
UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)

_raw_array = msgspec.json.Decoder(list[msgspec.Raw])


def is_sound(payload: bytes, n: int) -> bool:
    """Whether a payload is an array of so many values, so that it can be merged with others."""
    try:
        return len(_raw_array.decode(payload)) == n and payload[:1] == b"[" and payload[-1:] == b"]"
    except UNREADABLE:
        return False


_event_array = msgspec.json.Decoder(list[Event | None])


def _read_v1(payload: bytes) -> list[Stored]:
    raws = [bytes(raw) for raw in _raw_array.decode(payload)]
    try:
        events = _event_array.decode(payload)  # in one call; one by one it takes longer
    except UNREADABLE:
        return [_read_event(raw) for raw in raws]
    return [GONE if event is None else Stored(raw, event) for raw, event in zip(raws, events, strict=True)]


def _read_event(raw: bytes) -> Stored:
    if raw == ERASED:
        return GONE
    try:
        return Stored(raw, decode(raw))
    except UNREADABLE as error:
        return Stored(raw, None, f"unreadable: {error}")


_READERS: dict[int, Callable[[bytes], list[Stored]]] = {1: _read_v1}


def unpack(version: int, payload: bytes) -> list[Stored]:
    """The events of a payload. Raises ``ValueError`` if the payload as a whole is damaged."""
    if version not in _READERS:
        raise ValueError(f"unknown version {version}")
    try:
        return _READERS[version](payload)
    except UNREADABLE as error:
        raise ValueError(f"unreadable payload: {error}") from error
