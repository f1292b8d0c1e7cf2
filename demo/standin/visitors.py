"""Matomo's visitors: who a hit is of, and which visit it belongs to."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .hits import Hit

#: Seconds without a hit after which the next one begins a new visit.
VISIT = 1800
HEX16 = re.compile(r"[0-9a-fA-F]{16}")


@dataclass
class Visitor:
    visitor_id: str
    """16 hexadecimal digits."""
    user_ids: set[str] = field(default_factory=set)
    cookie_ids: set[str] = field(default_factory=set)
    """What came as ``_id``."""
    hits: int = 0
    visits: int = 0
    last: float = 0.0
    """The time of the last hit, in Unix seconds."""

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "user_ids": sorted(self.user_ids), "cookie_ids": sorted(self.cookie_ids)}


class Visitors:
    def __init__(self) -> None:
        self._visitors: dict[str, Visitor] = {}
        self._fingerprints: dict[str, tuple[str, float]] = {}

    def recognise(self, hit: Hit, address: str, language: str) -> str:
        """The visitor id of a hit: of ``uid``, ``cid``, ``_id``, or of the same device within a visit's time.

        That is the order of Matomo 5 with its usual setting, in which a user id overwrites the visitor id.
        """
        sent, now = hit.sent, hit.time.timestamp()
        device = "\0".join([hit.user_agent, address, language, sent.get("res", ""), sent.get("cookie", "")])
        if hit.user_id:
            visitor_id = hashlib.sha1(hit.user_id.encode()).hexdigest()[:16]
        elif sent.get("cid"):
            visitor_id = sent["cid"].lower()
        elif HEX16.match(sent.get("_id", "")):
            visitor_id = sent["_id"][:16].lower()
        else:
            visitor_id, seen = self._fingerprints.get(device, ("", 0.0))
            if not visitor_id or abs(now - seen) > VISIT:
                visitor_id = secrets.token_hex(8)
        self._fingerprints[device] = (visitor_id, now)
        return visitor_id

    def count(self, hit: Hit) -> None:
        """Add a hit that was kept to its visitor."""
        visitor = self._visitors.setdefault(hit.person, Visitor(hit.person))
        now = hit.time.timestamp()
        if not visitor.visits or now - visitor.last > VISIT or hit.sent.get("new_visit") == "1":
            visitor.visits += 1
        visitor.hits += 1
        visitor.last = max(visitor.last, now)
        if hit.user_id:
            visitor.user_ids.add(hit.user_id)
        if HEX16.match(hit.sent.get("_id", "")):
            visitor.cookie_ids.add(hit.sent["_id"][:16].lower())

    def all(self) -> list[Visitor]:
        return list(self._visitors.values())
