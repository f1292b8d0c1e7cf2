"""From a request to a Context: everything that is needed is copied, and the request is never kept."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from django.core.exceptions import DisallowedHost

from pluginhost import scrubbing
from pluginhost.events import Context

if TYPE_CHECKING:
    from django.http import HttpRequest

    from pluginhost.conf import Settings

#: What stays as it is in a path; and the signs of a route pattern.
_SAFE = "/~:@&+$,-_.!*'();=[]<>"


def context_of(request: HttpRequest, settings: Settings) -> Context:
    """Copy and scrub what the events of this request carry."""
    meta = request.META
    match = request.resolver_match
    site = scrubbing.site_of(request, settings)
    path = scrubbing.path(request.path, site, match)
    host = _host(request)
    query = scrubbing.query(meta.get("QUERY_STRING", ""), settings)
    return Context(
        ip=scrubbing.client_address(meta.get("REMOTE_ADDR", ""), meta.get("HTTP_X_FORWARDED_FOR", ""), settings),
        user_agent=scrubbing.header(meta.get("HTTP_USER_AGENT")),
        language=scrubbing.header(meta.get("HTTP_ACCEPT_LANGUAGE")),
        method=scrubbing.header(request.method, 16),
        url=None if host is None else _url(f"{request.scheme}://{host}{path}", query),
        path=scrubbing.header(path, scrubbing.MAX_URL),
        referrer=scrubbing.url(meta.get("HTTP_REFERER"), site, settings),
        route=match.view_name if match else None,
    )


def _host(request: HttpRequest) -> str | None:
    """The host that the request was for; None where Django refuses to believe it, or the request is made by hand."""
    try:
        return request.get_host()
    except (DisallowedHost, KeyError):
        return None


@lru_cache(maxsize=256)
def _url(address: str, query: str) -> str | None:
    """Encoded as it came: Django has decoded the path, and ``?`` and ``#`` in it are no separators."""
    address = quote(address, safe=_SAFE, errors="replace")
    return scrubbing.header(f"{address}?{query}" if query else address, scrubbing.MAX_URL)
