"""Who did it, without asking the database and without a ``Vary: Cookie``.

Touching ``request.user`` or a session key costs one or two queries and makes
every cache in front of the site keep a page a visitor. So only what this request
has resolved already is looked at, unless the project chose ``IDENTITY: "always"``.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.contrib.auth import SESSION_KEY
from django.core.exceptions import SynchronousOnlyOperation
from django.utils.functional import LazyObject, empty

from pluginhost import door, memo
from pluginhost.db import harmless
from pluginhost.exceptions import InvalidEvent
from pluginhost.plugin import CookieIds, Plugin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from django.http import HttpRequest

    from pluginhost.conf import Settings

logger = logging.getLogger("pluginhost.identity")

#: What the host itself writes into its cookie: a UUID without dashes. Anything else there is not ours.
ANONYMOUS_ID = re.compile(r"[0-9a-f]{32}")

NO_IDS = CookieIds()


def known_user(request: HttpRequest) -> Any:
    """The user that this request has resolved already, or None. Runs no query, reads no session."""
    kept = request.__dict__
    user = kept.get("user")
    while isinstance(user, LazyObject):  # the user itself: each look through the lazy one costs a call
        user = user._wrapped
    if user is not None and user is not empty:
        return user
    cached = kept.get("_cached_user")
    return kept.get("_acached_user") if cached is None else cached  # where ``request.auser`` leaves it


def unwrapped(request: Any) -> Any:
    """Django's own request, also where Django REST framework has put its own around it."""
    return getattr(request, "_request", request)


def user_id_of(user: Any) -> str | None:
    """The id of a user who is logged in, as text."""
    if user is None or not getattr(user, "is_authenticated", False):
        return None
    pk = getattr(user, "pk", None)
    return None if pk is None else str(pk)


def resolve(request: HttpRequest, settings: Settings, *, believe_session: bool = True) -> str | None:
    """The user id of a request, by the first rule that answers; None for an anonymous visitor.

    A user that the request has resolved; nothing without a session cookie; the user,
    if the project pays for it; the session, if something has read it already. With
    ``believe_session`` false the user is resolved instead: one who was deleted, or
    whose password has changed, may still be in a session.
    """
    user = known_user(request)
    if user is not None:
        return user_id_of(user)
    if django_settings.SESSION_COOKIE_NAME not in request.COOKIES:
        return None
    if settings.IDENTITY == "always":
        return user_id_of(getattr(request, "user", None))
    session = getattr(request, "session", None)
    if session is None or not getattr(session, "accessed", False):
        return None
    user_id = session.get(SESSION_KEY)
    if user_id is not None and not believe_session:
        return user_id_of(getattr(request, "user", None))
    return None if user_id is None else str(user_id)


def page_user_id(request: HttpRequest) -> str | None:
    """The id of the user whom a page may name. Reads session and user, unless no session cookie came.

    None also where that is impossible, as for a page that an event loop renders: a
    page without a name is never wrong.
    """
    if known_user(request) is None and django_settings.SESSION_COOKIE_NAME not in request.COOKIES:
        return None
    try:
        with harmless():
            return user_id_of(known_user(request) or getattr(request, "user", None))
    except Exception as error:
        log_unreadable(error)
        return None


def log_unreadable(error: Exception) -> None:
    """Say why a page goes without what the session holds."""
    if isinstance(error, SynchronousOnlyOperation):
        _warn_of_event_loop()
    else:
        logger.error("the session could not be read; a page goes without the visitor", exc_info=error)


@lru_cache(maxsize=1)
def _warn_of_event_loop() -> None:
    """Once a process: any visitor with a cookie could fill the log."""
    logger.warning(
        "the session can't be read in an event loop, so a page is rendered without the visitor and without"
        " waiting events: use await host.arender(), sync_to_async(render), or await request.auser() before"
    )


def anonymous_id(request: HttpRequest, settings: Settings) -> str | None:
    """The visitor's anonymous id: of the cookie that came, or of the one that the middleware will set.

    After a log-out there is none: who comes next is somebody else.
    """
    remembered = memo.of(request)
    if settings.ANONYMOUS_COOKIE is None or remembered.signed_out is not None:
        return None
    value = request.COOKIES.get(settings.ANONYMOUS_COOKIE, "")
    if ANONYMOUS_ID.fullmatch(value):
        return value
    return remembered.new_id


def new_id(request: HttpRequest, settings: Settings) -> str | None:
    """An anonymous id for a browser that has none, where the middleware allowed that for this request."""
    remembered = memo.of(request)
    if settings.ANONYMOUS_COOKIE is None or remembered.signed_out is not None or not remembered.may_make_id:
        return None
    return uuid.uuid4().hex


def note_sign_out(*, request: HttpRequest | None, user: Any, **_: Any) -> None:
    """Receiver of ``user_logged_out``: who uses this browser next is another person, as far as anyone can tell."""
    if request is not None and user is not None:
        _sign_out(request)


def note_sign_in(*, request: HttpRequest | None, **_: Any) -> None:
    """Receiver of ``user_logged_in``: a log-in over the session of another user ends that one without a signal.

    Django then flushes the session that came, and leaves it without a key; that of an
    anonymous visitor gets a new key. A log-in by a token has no session at all.
    """
    session = getattr(request, "session", None)
    if request is None or session is None or django_settings.SESSION_COOKIE_NAME not in request.COOKIES:
        return
    if session.session_key is None:
        _sign_out(request)


def _sign_out(request: HttpRequest) -> None:
    memo.of(unwrapped(request)).signed_out = str(time.time_ns() // 1_000_000)


def provider_ids(request: HttpRequest, readers: Iterable[Plugin]) -> Mapping[str, CookieIds]:
    """Alias -> ids of the plugins that read cookies, read once a request.

    A plugin that raises, or gives no usable id, gives none.
    """
    memory = memo.of(request)
    if memory.signed_out is not None:
        return {}
    remembered = memory.provider_ids
    for plugin in readers:
        if plugin.alias not in remembered:
            remembered[plugin.alias] = _cookie_ids(plugin, request)
    return {plugin.alias: remembered[plugin.alias] for plugin in readers}


def first(ids: Mapping[str, CookieIds]) -> str | None:
    """The anonymous id of the first provider that has one, in the order of the setting."""
    for own in ids.values():
        if own.anonymous:
            return own.anonymous
    return None


def _cookie_ids(plugin: Plugin, request: HttpRequest) -> CookieIds:
    try:
        ids = plugin.cookie_ids(request)
        if ids is None:
            return NO_IDS
        anonymous = _usable(ids.anonymous)
        return CookieIds(anonymous, anonymous if ids.visitor is ids.anonymous else _usable(ids.visitor))
    except Exception as error:
        logger.error("plugin %s: its cookies could not be read: %s", plugin.alias, type(error).__name__)
        return NO_IDS


def _usable(value: Any) -> str | None:
    """The id, if it is text that every database can store: a browser wrote it."""
    if not isinstance(value, str):
        return None
    try:
        return door.identifier("visitor_id", value)
    except InvalidEvent:
        return None
