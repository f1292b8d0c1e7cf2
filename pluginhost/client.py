"""Events for the browser to send: they wait in the session until a page is rendered, this one or the next.

So they survive the redirect after a form. A session is a bad place for much, so
little may wait.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from django.conf import settings as django_settings

from pluginhost import memo
from pluginhost.db import harmless
from pluginhost.events import Event, decode
from pluginhost.exceptions import InvalidEvent
from pluginhost.identity import log_unreadable

if TYPE_CHECKING:
    from django.contrib.sessions.backends.base import SessionBase
    from django.http import HttpRequest

logger = logging.getLogger("pluginhost.client")

#: The key in the session: a list of [aliases, JSON of the event].
KEY = "_pluginhost_client"
MAX_EVENTS = 20
MAX_BYTES = 2048


class Waiting(NamedTuple):
    """An event that waits for a page, and the aliases that may have it."""

    aliases: frozenset[str]
    event: Event


def keep(request: HttpRequest, aliases: tuple[str, ...], event: Event, encoded: bytes) -> None:
    """Let an event wait for a page, unless one with its message id does already.

    Raises ``InvalidEvent`` if it can't wait, and what the session raises.
    """
    session: SessionBase | None = getattr(request, "session", None)
    if session is None:
        raise InvalidEvent("request", "has no session for the event to wait in: add Django's SessionMiddleware")
    readable = [(item, waiting) for item in _stored(session) if (waiting := _read(item))]
    if any(waiting.event.message_id == event.message_id for _, waiting in readable):
        return
    items = [*(item for item, _ in readable), [list(aliases), encoded.decode()]]
    size = sum(len(text.encode()) for _, text in items)
    if len(items) > MAX_EVENTS or size > MAX_BYTES:
        raise InvalidEvent(
            "event",
            f"would make {len(items)} events of {size} bytes wait for a page;"
            f" {MAX_EVENTS} and {MAX_BYTES} are allowed. What is larger is for host.track",
        )
    if not _put(request, session, items):
        raise InvalidEvent("request", "is being answered, and its session has gone out in a cookie: track earlier")


def take(request: HttpRequest) -> list[Waiting]:
    """Take what waits out of the session, for the page that is being rendered.

    Nothing is taken for a page that nobody may see: an answer to HEAD, a page that
    is fetched on suspicion. A session that can't be read or saved keeps what it has.
    """
    if request.method == "HEAD" or is_prefetch(request):
        return []
    session: SessionBase | None = getattr(request, "session", None)
    if session is None or not (is_modified(session) or django_settings.SESSION_COOKIE_NAME in request.COOKIES):
        return []
    try:
        with harmless():
            stored = _stored(session)
            if not stored or not _put(request, session, []):
                return []
    except Exception as error:
        log_unreadable(error)
        return []
    return [waiting for item in stored if (waiting := _read(item))]


def is_prefetch(request: HttpRequest) -> bool:
    """Whether a browser fetches the page on suspicion: by today's header, and by those of older browsers."""
    return any("prefetch" in request.headers.get(name, "") for name in ("Sec-Purpose", "Purpose", "X-Moz"))


def is_modified(session: SessionBase) -> bool:
    """Whether something was put into the session. A plain dict, as tests of views take one, can't say."""
    return getattr(session, "modified", True)


def _put(request: HttpRequest, session: SessionBase, items: list[Any]) -> bool:
    """Let these items wait, and no others; False if it is too late for that.

    While the response is under way, nobody else saves the session. One without a key
    is new, and no browser will ever ask for it; one that does not exist has ended,
    or is all in its cookie (the backend ``signed_cookies`` says so of every key).
    """
    key = session.session_key if memo.of(request).under_way else None
    if key is not None and not session.exists(key):
        return False
    if items:
        session[KEY] = items
    else:
        del session[KEY]
    if key is not None:
        session.save()
    return True


def _stored(session: SessionBase) -> list[Any]:
    stored = session.get(KEY, [])
    return stored if isinstance(stored, list) else []


def _read(item: Any) -> Waiting | None:
    """One stored event; None for what an older version stored, or the session's owner wrote."""
    match item:
        case [[*aliases], str(text)]:
            with suppress(TypeError, ValueError, msgspec.MsgspecError):
                return Waiting(frozenset(aliases), decode(text))
    logger.error("an event that waited for a page can't be read; it is dropped")
    return None
