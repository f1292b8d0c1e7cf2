"""Who did it, without asking the database and without a ``Vary: Cookie``.

Touching ``request.user`` or a session key costs one or two queries and makes
every cache in front of the site keep a page a visitor. So only what this request
has resolved already is looked at, unless the project chose ``IDENTITY: "always"``.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.contrib.auth import SESSION_KEY
from django.utils.functional import LazyObject, empty

if TYPE_CHECKING:
    from django.http import HttpRequest

    from pluginhost.conf import Settings

#: What the host itself writes into its cookie: a UUID without dashes. Anything else there is not ours.
ANONYMOUS_ID = re.compile(r"[0-9a-f]{32}")


def known_user(request: HttpRequest) -> Any:
    """The user that this request has resolved already, or None. Runs no query, reads no session."""
    for name in ("user", "_cached_user", "_acached_user"):  # the last is where ``request.auser`` leaves it
        user = request.__dict__.get(name)
        if user is None or (isinstance(user, LazyObject) and user._wrapped is empty):
            continue
        return user
    return None


def user_id_of(user: Any) -> str | None:
    """The id of a user who is logged in, as text."""
    if user is None or not getattr(user, "is_authenticated", False):
        return None
    pk = getattr(user, "pk", None)
    return None if pk is None else str(pk)


def resolve(request: HttpRequest, settings: Settings) -> str | None:
    """The user id of a request, by the first rule that answers; None for an anonymous visitor.

    A user that the request has resolved; nothing without a session cookie; the
    session, if something has read it already; the user, if the project pays for it.
    """
    user = known_user(request)
    if user is not None:
        return user_id_of(user)
    if django_settings.SESSION_COOKIE_NAME not in request.COOKIES:
        return None
    session = getattr(request, "session", None)
    if session is not None and session.accessed:
        user_id = session.get(SESSION_KEY)
        return None if user_id is None else str(user_id)
    if settings.IDENTITY == "always":
        return user_id_of(getattr(request, "user", None))
    return None


def anonymous_id(request: HttpRequest, settings: Settings, *, may_make: bool = False) -> str | None:
    """The visitor's anonymous id: of the cookie that came, or of the one that the middleware will set.

    ``may_make``: make one, where the middleware allowed that for this request.
    """
    if settings.ANONYMOUS_COOKIE is None:
        return None
    value = request.COOKIES.get(settings.ANONYMOUS_COOKIE, "")
    if ANONYMOUS_ID.fullmatch(value):
        return value
    if may_make and getattr(request, "_pluginhost_anonymous_id", None) == "":
        request._pluginhost_anonymous_id = uuid.uuid4().hex  # type: ignore[attr-defined]
    return new_anonymous_id(request)


def allow_new_anonymous_id(request: HttpRequest) -> None:
    """Let this request's first event make an id; only who will set the cookie may allow it."""
    request._pluginhost_anonymous_id = ""  # type: ignore[attr-defined]


def new_anonymous_id(request: HttpRequest) -> str | None:
    """The id that this request's events made, if they did."""
    return getattr(request, "_pluginhost_anonymous_id", "") or None
