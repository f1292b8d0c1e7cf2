"""What the host remembers of one request, in one place that every copy of the request shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from pluginhost.caching import Caching

if TYPE_CHECKING:
    from django.http import HttpRequest

    from pluginhost.events import Context
    from pluginhost.filtering import Verdict
    from pluginhost.identity import ProviderIds


@dataclass
class Memo:
    """Made at the first question about a request; the middleware asks it before anybody can copy the request."""

    original: ReferenceType[HttpRequest]
    verdict: tuple[Any, Verdict] | None = None
    """Who the filters were asked about, and what they said."""
    context: tuple[Any, Context] | None = None
    """What the URL was resolved to, and the context made of it."""
    provider_ids: dict[str, ProviderIds] = field(default_factory=dict)
    may_make_id: bool = False
    """Whether an event may give the browser an anonymous id: somebody will set the cookie."""
    new_id: str | None = None
    """The anonymous id that an event has given."""
    signed_out: str | None = None
    """When the request ended a user's session, in Unix milliseconds."""
    under_way: bool = False
    """The response's headers have gone out, though the page is still being rendered."""
    caching: Caching = field(default_factory=Caching)

    def keep_from_inner_cache(self, request: HttpRequest) -> None:
        """Keep a view's own ``cache_page`` from storing this request's page, be it a copy of the view's or not."""
        original = self.original()
        self.caching.keep_from_inner_cache(request, *([] if original is None else [original]))


def of(request: HttpRequest) -> Memo:
    """The memo of a request, made if there is none."""
    memo: Memo | None = request.__dict__.get("_pluginhost")
    if memo is None:
        memo = request._pluginhost = Memo(ref(request))  # type: ignore[attr-defined]
    return memo
