"""Events for the browser to send: they wait in the session until a page is rendered, this one or the next.

So they survive the redirect after a form. A session is a bad place for much, so
little may wait.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from django.conf import settings as django_settings

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


def keep(request: HttpRequest, aliases: tuple[str, ...], encoded: bytes) -> None:
    """Let an event wait for a page. Raises ``InvalidEvent`` if it can't, and what the session raises."""
    session: SessionBase | None = getattr(request, "session", None)
    if session is None:
        raise InvalidEvent("request", "has no session for the event to wait in: add Django's SessionMiddleware")
    waiting = [*_stored(session), [list(aliases), encoded.decode()]]
    size = sum(len(str(text).encode()) for _, text in waiting)
    if len(waiting) > MAX_EVENTS or size > MAX_BYTES:
        raise InvalidEvent(
            "event",
            f"would make {len(waiting)} events of {size} bytes wait for a page;"
            f" {MAX_EVENTS} and {MAX_BYTES} are allowed. What is larger is for host.track",
        )
    session[KEY] = waiting


def take(request: HttpRequest, *, late: bool) -> list[Waiting]:
    """Take what waits out of the session, for the page that is being rendered.

    Nothing is taken for a page that nobody may see: an answer to HEAD, a page that
    is fetched on suspicion. ``late``: the response is under way, so that nobody
    saves the session any more. A session that can't be read keeps what it has.
    """
    if request.method == "HEAD" or "prefetch" in request.headers.get("Sec-Purpose", ""):
        return []
    session: SessionBase | None = getattr(request, "session", None)
    if session is None or not (session.modified or django_settings.SESSION_COOKIE_NAME in request.COOKIES):
        return []
    try:
        stored = _stored(session)
        if not stored:
            return []
        del session[KEY]
        if late:
            session.save()
    except Exception as error:
        log_unreadable(error)
        return []
    return [waiting for item in stored if (waiting := _read(item))]


def _stored(session: SessionBase) -> list[Any]:
    stored = session.get(KEY, [])
    return stored if isinstance(stored, list) else []


def _read(item: Any) -> Waiting | None:
    """One stored event; None for what an older version stored, or the session's owner wrote."""
    try:
        aliases, text = item
        return Waiting(frozenset(aliases), decode(text))
    except (TypeError, ValueError, msgspec.MsgspecError):
        logger.error("an event that waited for a page can't be read; it is dropped")
        return None
