"""What the host remembers of one request, in one place that every copy of the request shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from pluginhost.caching import Caching

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from pluginhost.events import Context
    from pluginhost.filtering import Verdict
    from pluginhost.plugin import CookieIds


class Memo:
    """Made at the first question about a request; the middleware asks it before anybody can copy the request.

    What is not known yet is an attribute of the class, so that a memo costs next to nothing.
    """

    original: ReferenceType[HttpRequest]
    provider_ids: dict[str, CookieIds]
    verdict: tuple[Any, Verdict] | None = None
    """Who the filters were asked about, and what they said."""
    context: tuple[Any, Context] | None = None
    """What the URL was resolved to, and the context made of it."""
    may_make_id: bool = False
    """Whether an event may give the browser an anonymous id: somebody will set the cookie."""
    new_id: str | None = None
    """The anonymous id that an event has given."""
    signed_out: str | None = None
    """When the request ended a user's session, in Unix milliseconds."""
    under_way: bool = False
    """The response's headers have gone out, though the page is still being rendered."""
    _caching: Caching | None = None

    def __init__(self, request: HttpRequest) -> None:
        self.original = ref(request)
        self.provider_ids = {}

    @property
    def caching(self) -> Caching:
        """What caches have to know of the page."""
        if self._caching is None:
            self._caching = Caching()
        return self._caching

    def patch(self, response: HttpResponseBase) -> None:
        """Say it in the response's headers, if there is anything to say."""
        if self._caching is not None:
            self._caching.patch(response)

    def keep_from_inner_cache(self, request: HttpRequest) -> None:
        """Keep a view's own ``cache_page`` from storing this request's page, be it a copy of the view's or not."""
        original = self.original()
        self.caching.keep_from_inner_cache(request, *([] if original is None else [original]))


def of(request: HttpRequest) -> Memo:
    """The memo of a request, made if there is none."""
    memo: Memo | None = request.__dict__.get("_pluginhost")
    if memo is None:
        memo = request._pluginhost = Memo(request)  # type: ignore[attr-defined]
    return memo
