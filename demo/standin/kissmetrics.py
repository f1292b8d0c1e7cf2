"""What KISSmetrics makes of a request to ``/e``, ``/s`` or ``/a`` (https://support.kissmetrics.io, API specifications).

It never says that something is wrong: each answer is 200 and a GIF.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .hits import GIF, Answer, Hit, Request, moment
from .people import People

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

KINDS = {"e": "event", "s": "properties", "a": "alias"}
KEY = re.compile(r"[0-9a-f]{40}")
SECONDS = re.compile(r"\d+")
#: Names that the protocol or an official client uses; all others that begin with "_" are reserved.
PROTOCOL = frozenset({"_k", "_p", "_n", "_t", "_d", "_c", "_u", "_x"})
#: Characters of an identity, of an event's name and of a property's name.
MAX_NAME = 255
#: Characters of a property's value.
MAX_VALUE = 512
#: The first second of 2009: nothing older is kept.
FIRST = 1_230_768_000
#: How far a clock may be wrong, in seconds.
AHEAD = 86_400


class Kissmetrics:
    name = "kissmetrics"

    def __init__(self, keys: Collection[str], keep: Callable[[Hit], None]) -> None:
        """``keep`` is given each hit, kept or not."""
        self._keys = frozenset(keys)
        self._keep = keep
        self.clear()

    def clear(self) -> None:
        self.people = People()
        self._spellings: dict[str, str] = {}
        self._seen: set[tuple[str, str, str, int]] = set()
        self._count = 0

    def knows(self, key: str) -> bool:
        return key in self._keys

    def answer(self, request: Request, refusal: str = "") -> Answer:
        """Decide, and answer. With a ``refusal`` nothing is kept, for that reason."""
        if request.path in KINDS:
            self._keep(self._decide(request, refusal))
        return Answer(200, GIF, "image/gif")

    def _decide(self, request: Request, refusal: str) -> Hit:
        self._count += 1
        sent = request.parameters()
        hit = Hit(
            provider=self.name,
            number=self._count,
            received=moment(request.at),
            origin=request.origin,
            sent=sent,
            user_agent=request.headers.get("User-Agent", ""),
            kind=KINDS[request.path],
            name=_plain(sent.get("_n", "")),
            person=_plain(sent.get("_p", "")),
            time=moment(request.at),
        )
        refusal = refusal or self._key_refusal(sent) or _name_refusal(hit) or _set_time(hit)
        if refusal:
            hit.refuse(refusal)
        else:
            self._store(hit)
        return hit

    def _key_refusal(self, sent: dict[str, str]) -> str:
        key = sent.get("_k", "")
        if not KEY.fullmatch(key):
            return "_k is no key: it has 40 lower-case hexadecimal digits"
        return "" if self.knows(key) else "there is no product with this key"

    def _store(self, hit: Hit) -> None:
        if hit.kind == "alias":
            self.people.merge(hit.person, hit.name)
            return
        hit.properties = _properties(hit)
        second = int(hit.time.timestamp())
        if hit.kind == "event":
            hit.name = self._spellings.setdefault(hit.name.lower(), hit.name)
            hit.duplicate = not self._first("event", hit.person, hit.name, second)
        else:
            fresh = [name for name in hit.properties if self._first("property", hit.person, name, second)]
            if left_out := [name for name in hit.properties if name not in fresh]:
                hit.notes.append(f"duplicates of the same second: {', '.join(left_out)}")
            if not hit.properties:
                hit.refuse("there is no property")
                return
            hit.properties = {name: hit.properties[name] for name in fresh}
            hit.duplicate = not fresh
        self.people.add(hit.person)
        if hit.duplicate:
            hit.refuse("a duplicate: the same person, name and second")

    def _first(self, kind: str, person: str, name: str, second: int) -> bool:
        """Whether this is the first of its kind in that second. Names have no case."""
        key = (kind, person, name.lower(), second)
        fresh = key not in self._seen
        self._seen.add(key)
        return fresh


def _plain(name: str) -> str:
    """Commas and colons become spaces in identities and names."""
    return name.replace(",", " ").replace(":", " ")


def _name_refusal(hit: Hit) -> str:
    if not hit.person:
        return "_p is missing: whose is it?"
    if len(hit.person) > MAX_NAME:
        return f"_p has more than {MAX_NAME} characters"
    if hit.kind == "properties":
        return ""
    if not hit.name:
        return "_n is missing: the event's name" if hit.kind == "event" else "_n is missing: the other identity"
    return f"_n has more than {MAX_NAME} characters" if len(hit.name) > MAX_NAME else ""


def _set_time(hit: Hit) -> str:
    """Take ``_t`` where ``_d`` says so, else the time of receipt stays. Why the hit is refused, if it is."""
    given = hit.sent.get("_t", "")
    if not given:
        return ""
    if hit.sent.get("_d") != "1":
        hit.notes.append("_t without _d=1: it happened when it was received")
        return ""
    if not SECONDS.fullmatch(given):
        return "_t is no whole number of seconds"
    if int(given) < FIRST:
        return "_t lies before 2009"
    if int(given) > hit.received.timestamp() + AHEAD:
        return "_t lies in the future: it counts seconds, not milliseconds"
    hit.time = moment(int(given))
    return ""


def _properties(hit: Hit) -> dict[str, str]:
    properties = {}
    for given, value in hit.sent.items():
        name = _plain(given)
        if given.startswith("_"):
            if given not in PROTOCOL:
                hit.notes.append(f"{given} left out: such names are reserved")
        elif not name or len(name) > MAX_NAME:
            hit.notes.append(f"a property left out: its name has {len(name)} characters, not 1 to {MAX_NAME}")
        else:
            if len(value) > MAX_VALUE:
                hit.notes.append(f"{name} cut: it had {len(value)} characters, and {MAX_VALUE} are kept")
            properties[name] = value[:MAX_VALUE]
    return properties
