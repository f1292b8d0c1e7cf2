"""Who: which ids stand for a person, and what the cookies of KISSmetrics' script say. Pure.

A wrong id is worse than none: what is aliased by mistake stays one person for ever.
Cookies: KISSmetrics, "Reusing the Identities Set by the JavaScript Library" and
"Identities" (support.kissmetrics.io, 2026).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from pluginhost import CookieIds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pluginhost import Event

#: Characters of an identity (KISSmetrics, "Identities").
MAX_ID = 255
#: What programs write for "no one", in small letters. As an identity each would be one person made of everybody.
NOBODY = frozenset({
    "", "(null)", "0", "<nil>", "<null>", "[]", "[object object]", "[object undefined]", "anonymous", "anonymoususer",
    "false", "nan", "nil", "none", "not_authenticated", "null", "true", "undefined", "{}",
})  # fmt: skip

#: The names of the cookies that KISSmetrics' script writes: the anonymous id, and the id that ``identify`` was given.
ANONYMOUS_COOKIE = "km_ai"
NAMED_COOKIE = "km_ni"

_UNSAFE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_AS_SPACES = str.maketrans(",:", "  ")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{20,}={0,2}")


def usable(text: str | None) -> str | None:
    """``text`` without spaces around it, if it can stand for one person, else None.

    One that is too long is none, as two that are cut could become the same.
    """
    if text is None or _UNSAFE.search(text):
        return None
    text = text.strip()
    return None if len(text) > MAX_ID or plain(text).strip().lower() in NOBODY else text


def plain(text: str) -> str:
    """An id or a name as KISSmetrics has it: commas and colons become spaces ("Identities", "Events")."""
    return text.translate(_AS_SPACES)


def person(event: Event, alias: str) -> str | None:
    """The person of a track, page or identify event: the user, else what the cookies said, else the anonymous id."""
    for candidate in (event.user_id, event.visitor_ids.get(alias), event.anonymous_id):
        if found := usable(candidate):
            return found
    return None


def cookie_ids(cookies: Mapping[str, str]) -> CookieIds:
    """Whom KISSmetrics' script takes the browser for: the id that it was given by ``identify``, else the other one.

    And the id that the script has made, for as long as it is anonymous. The same
    cookie can also hold an id of the site's: the script puts it there when it is told
    of a second person. The script's own are base64 of random bytes; numbers, UUIDs,
    hashes and e-mail addresses do not look like that.
    """
    named, other = _cookie(cookies, NAMED_COOKIE), _cookie(cookies, ANONYMOUS_COOKIE)
    is_made = other is not None and other != named and _looks_made(other)
    return CookieIds(anonymous=other if is_made else None, visitor=named or other)


def _looks_made(value: str) -> bool:
    if not _BASE64.fullmatch(value):
        return False
    return value.endswith("=") or (value != value.lower() and value != value.upper())


def _cookie(cookies: Mapping[str, str], name: str) -> str | None:
    value = cookies.get(name)
    if not value:
        return None
    return usable(unquote(value) if "%" in value else value)
