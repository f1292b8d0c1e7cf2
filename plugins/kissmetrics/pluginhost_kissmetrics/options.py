"""What a project writes, and what is wrong with it."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

import pluginhost
from pluginhost_kissmetrics.payload import MAX_NAME, property_name

Skip = Literal["form_fields", "page_view", "referrer", "returning", "search_engine", "url", "utm", "visited_site"]
Timeout = Annotated[float, msgspec.Meta(gt=0, le=600)]

#: The form that KISSmetrics' own WordPress plugin (km-installer, 2026) demands of a key.
API_KEY = re.compile(r"[0-9a-f]{40}")
_URL = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~%/-]*)?")
_DOMAIN = re.compile(r"\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")


class Options(pluginhost.Options):
    API_KEY: pluginhost.Secret
    """The product's key: 40 of 0-9 and a-f. Every page shows it, but no log and no error."""
    TRACKING_URL: str = "https://trk.kissmetrics.io"
    """Where the server sends to."""
    CONNECT_TIMEOUT: Timeout = 2.0
    """Seconds for a connection to one of the host's addresses."""
    READ_TIMEOUT: Timeout = 5.0
    """Seconds without a byte of the answer. A call never takes longer than both together."""
    PAGE_EVENT: str | None = None
    """The name under which page views of the server are recorded. None: they are not, as the script records its own."""
    VALUE_PROPERTY: str | None = "Value"
    """The property that holds an event's value; ``"Billing Amount"`` feeds the revenue report. None: none does."""
    LOADER: bool = True
    """Whether pages load KISSmetrics' script. False where they do so already."""
    LOADER_URL: str = "https://i.kissmetrics.io/i.js"
    """The first of KISSmetrics' two scripts."""
    SCRIPT_URL: str = "https://scripts.kissmetrics.io"
    """Where the second one is, ``KEY.2.js``."""
    IDENTIFY: bool = True
    """Whether the browser names the visitor at a log-in, and forgets at a log-out."""
    COOKIE_DOMAIN: str | None = None
    """The domain of the script's cookies. None: the script chooses, which is the host without ``www``."""
    SKIP: frozenset[Skip] = frozenset()
    """What the script does not record by itself."""

    def __post_init__(self) -> None:
        _check_key(self.API_KEY.reveal())
        for name in ("TRACKING_URL", "LOADER_URL", "SCRIPT_URL"):
            setattr(self, name, _url(name, getattr(self, name)))
        if self.PAGE_EVENT is not None and not 0 < len(self.PAGE_EVENT.strip()) <= MAX_NAME:
            raise ValueError(f"PAGE_EVENT must have 1 to {MAX_NAME} characters, or be None")
        if self.VALUE_PROPERTY is not None and property_name(self.VALUE_PROPERTY) != self.VALUE_PROPERTY:
            raise ValueError("VALUE_PROPERTY must be a name of a property without spaces around it or '_' before it")
        if self.VALUE_PROPERTY == "":
            raise ValueError("VALUE_PROPERTY is empty; None leaves the value out")
        if self.COOKIE_DOMAIN is not None and not _DOMAIN.fullmatch(self.COOKIE_DOMAIN):
            raise ValueError("COOKIE_DOMAIN must be a domain such as '.example.com', without scheme, port or path")


def _check_key(key: str) -> None:
    if API_KEY.fullmatch(key):
        return
    if key != key.strip():
        problem = "has spaces or line ends around it"
    elif len(key) != 40:
        problem = f"has {len(key)} characters"
    elif API_KEY.fullmatch(key.lower()):
        problem = "has capital letters"
    else:
        problem = "has other characters"
    raise ValueError(f"API_KEY {problem}; a key of KISSmetrics is 40 of 0-9 and a-f")


def _url(name: str, text: str) -> str:
    """``text`` without slashes at its end. Raises ``ValueError``, without what it holds: there may be a password."""
    try:
        parts = urlsplit(text)
        port_is_wrong = parts.port == 0
    except ValueError:
        raise ValueError(f"{name} is no URL") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{name} must begin with https:// or http://")
    if "@" in parts.netloc:
        raise ValueError(f"{name} must not hold a user or a password")
    if "?" in text or "#" in text:
        raise ValueError(f"{name} must not hold a query or a fragment")
    if port_is_wrong or not _URL.fullmatch(text):
        raise ValueError(f"{name} is no URL of a host and a path")
    return text.rstrip("/")
