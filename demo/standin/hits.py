"""What goes in and out of a provider: a request, its answer, and what the provider has made of it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Mapping

#: 43 bytes: a GIF of one transparent pixel.
GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")


class Request(NamedTuple):
    """As much of an HTTP request as a provider looks at."""

    method: str
    path: str
    """Below the provider's own path, without a leading slash."""
    query: str
    body: bytes
    headers: Mapping[str, str]
    address: str
    """The sender's IP address."""
    at: float
    """When it arrived, in Unix seconds."""

    @property
    def origin(self) -> Literal["browser", "server"]:
        """Browsers say what a request is for; programs do not."""
        return "browser" if self.headers.get("Sec-Fetch-Mode") or self.headers.get("Origin") else "server"

    def parameters(self) -> dict[str, str]:
        """Query and form together. Of one name the query wins, and of several in one place the last."""
        return {**form(self.body.decode("utf-8", "replace")), **form(self.query)}


def form(text: str) -> dict[str, str]:
    return dict(parse_qsl(text, keep_blank_values=True))


class Answer(NamedTuple):
    status: int
    body: bytes = b""
    content_type: str = "text/html; charset=utf-8"


@dataclass
class Hit:
    """One thing that a provider was told, and what it made of it."""

    provider: str
    number: int
    """Counted by provider, from 1."""
    received: datetime
    """In UTC, as is ``time``."""
    origin: Literal["browser", "server"]
    sent: dict[str, str]
    """All parameters as they came, but for tokens."""
    user_agent: str = ""
    """The visitor's, as the provider understands it."""
    kind: str = "unknown"
    """KISSmetrics: event, properties, alias. Matomo: page view, site search, content, event, outlink, download, goal,
    order, cart, ping, bot."""
    name: str = ""
    """Of the event, page, goal, order or link; of an alias the second identity."""
    person: str = ""
    """KISSmetrics: the identity. Matomo: the visitor id."""
    user_id: str = ""
    """Matomo: the user id."""
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When it happened, as the provider believes."""
    properties: dict[str, Any] = field(default_factory=dict)
    kept: bool = True
    reason: str = ""
    """Why it was not kept."""
    duplicate: bool = False
    """It was not kept because the same was there already."""
    notes: list[str] = field(default_factory=list)
    """What the provider left out or changed, although it kept the rest."""

    def refuse(self, reason: str) -> None:
        self.kept, self.reason = False, reason

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "received": self.received.isoformat(), "time": self.time.isoformat()}


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
