"""Who: Matomo's cookies in a request, and the visitor id of an event."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING

from django.core.exceptions import DisallowedHost

from pluginhost_piwik import actions

if TYPE_CHECKING:
    from django.http import HttpRequest

    from pluginhost import Event

#: Matomo's visitor id. Its own are in small letters.
VISITOR_ID = re.compile(r"[0-9a-fA-F]{16}")
#: Stands in ``event.visitor_ids`` for a visitor who does not want to be tracked.
REFUSED = "refused"
#: What programs write for nobody, in small letters. Each would be one person made of everybody.
NOBODY = frozenset(
    {"", "0", "anonymous", "anonymoususer", "false", "nan", "nil", "none", "null", "undefined", "[object object]"}
)
#: Characters of a user's id that Matomo keeps.
MAX_USER_ID = 200


def cookie_id(request: HttpRequest, site_id: int, cookie_domain: str | None = None) -> str | None:
    """The visitor id of Matomo's first-party cookie ``_pk_id.<site>.<hash>``, in small letters, or None.

    The hash is of the cookie's domain and path, so a browser may have several; the
    one that matomo.js uses on this host comes first. What is before the first dot
    of the value is the id (Matomo 3 to 5).
    """
    prefix = f"_pk_id.{site_id}."
    names = [name for name in request.COOKIES if name.startswith(prefix)]
    if len(names) > 1:
        own = prefix + _domain_hash(request, cookie_domain)
        names.sort(key=lambda name: (name != own, name))
    for name in names:
        value = request.COOKIES[name].partition(".")[0]
        if VISITOR_ID.fullmatch(value):
            return value.lower()
    return None


def _domain_hash(request: HttpRequest, cookie_domain: str | None) -> str:
    """As matomo.js makes it: of the configured domain, else of the host, and the path ``/``."""
    try:
        domain = cookie_domain or re.sub(r":\d+$", "", request.get_host())
    except (DisallowedHost, KeyError):
        return ""
    domain = domain.rstrip(".").removeprefix("*")
    return hashlib.sha1(f"{domain}/".encode(), usedforsecurity=False).hexdigest()[:4]


def refuses(request: HttpRequest, *, do_not_track: bool) -> bool:
    """Whether the visitor opted out: by Matomo's cookie on this site or, where the site honours it, by the browser."""
    if "mtm_consent_removed" in request.COOKIES:
        return True
    return do_not_track and "1" in (request.META.get("HTTP_DNT"), request.META.get("HTTP_X_DO_NOT_TRACK"))


def person(value: str | None) -> str | None:
    """The id of a user or a browser, or None if it is a word for nobody."""
    return value if value and value.strip().lower() not in NOBODY else None


def user_id(value: str | None) -> str | None:
    """A user's id as Matomo keeps it, or None: two that are cut or cleaned may become one."""
    given = (person(value) or "").strip()
    return given if given and len(given) <= MAX_USER_ID and actions.text(given) == given else None


def visitor_id(event: Event, alias: str, key: bytes) -> str | None:
    """The event's visitor id, 16 hexadecimal digits: the cookie's, else one derived from the person, else None.

    The same person always gets the same id, in every process that has the same
    ``key``, and nobody without it can find out who that is.
    """
    given = event.visitor_ids.get(alias) or ""
    if VISITOR_ID.fullmatch(given):
        return given.lower()
    if anonymous := person(event.anonymous_id):
        if VISITOR_ID.fullmatch(anonymous):
            return anonymous.lower()  # of the same cookie, which an event without a request may still know
        return derived("anonymous", anonymous, key)
    user = person(event.user_id)
    return derived("user", user, key) if user else None


def derived(kind: str, person: str, key: bytes) -> str:
    """The visitor id of a ``user`` or an ``anonymous`` browser."""
    message = f"pluginhost_piwik\0{kind}\0{person}".encode("utf-8", "replace")
    return hmac.digest(key, message, "sha256").hex()[:16]
