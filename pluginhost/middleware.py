"""``TrackerMiddleware``: the block in which a request's events wait, and the server's page views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings as django_settings
from django.core.exceptions import MiddlewareNotUsed
from django.http import FileResponse
from django.urls import get_script_prefix
from django.utils.cache import patch_vary_headers

from pluginhost import html, memo, rendering
from pluginhost.api import host
from pluginhost.buffer import Buffer
from pluginhost.client import is_prefetch
from pluginhost.conf import get_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from pluginhost.conf import Settings


class TrackerMiddleware:
    """Put it first, or behind Django's cache middleware: what runs inside of it may track.

    Events that are tracked outside of a transaction wait until the response is
    ready and become one envelope. If ``PAGE_VIEWS`` is ``"server"``, each page is
    tracked; if ``ANONYMOUS_COOKIE`` is set, a visitor without that cookie gets one
    with the first event that some plugin may have. It tells browsers and caches what
    the plugins' parts of a page mean for them: Vary, private, a log-out.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        if not get_settings().ENABLED:
            raise MiddlewareNotUsed("PLUGINHOST['ENABLED'] is False")
        host.registry  # noqa: B018 - a wrong setting stops the server at its start
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self.__acall__(request)
        waiting = _begin(request)
        try:
            response: HttpResponseBase = self.get_response(request)
            settings = get_settings()
            if _is_counted(request, response, settings):
                host.page(request)
            _finish(request, response, settings)
        finally:
            waiting.close()
        return response

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        waiting = _begin(request)
        try:
            response: HttpResponseBase = await self.get_response(request)
            settings = get_settings()
            if _is_counted(request, response, settings):
                await host.apage(request)  # in a thread: there the filters can look up whom they must
            _finish(request, response, settings)
        finally:
            await waiting.aclose()
        return response


def _begin(request: HttpRequest) -> Buffer:
    memo.of(request).may_make_id = True
    return Buffer(host.send)


def _is_counted(request: HttpRequest, response: HttpResponseBase, settings: Settings) -> bool:
    return settings.PAGE_VIEWS == "server" and is_page_view(request, response, settings)


def _finish(request: HttpRequest, response: HttpResponseBase, settings: Settings) -> None:
    if response.streaming:
        is_page = _is_page(response) and not isinstance(response, FileResponse)
        rendering.begin_stream(request, host.registry, is_page=is_page)
    memory = memo.of(request)
    memory.may_make_id = False  # from now on no cookie could carry it
    if memory.signed_out is not None:
        _sign_out(request, response, memory.signed_out, settings)
    elif memory.new_id is not None and settings.ANONYMOUS_COOKIE is not None:
        _set_cookie(request, response, settings.ANONYMOUS_COOKIE, memory.new_id, settings.ANONYMOUS_COOKIE_AGE)
    memory.patch(response)


def is_page_view(request: HttpRequest, response: HttpResponseBase, settings: Settings) -> bool:
    """Whether a person has seen a page: a GET that was answered with HTML, not fetched on suspicion or by a script."""
    return (
        request.method == "GET"
        and (_is_page(response) if response.status_code == 200 else _is_known_page(request, response))
        and not is_prefetch(request)
        and _is_navigation(request)
        and not request.path.startswith(_served())
        and not request.path_info.startswith(settings.EXCLUDE_PATHS)
    )


def _is_navigation(request: HttpRequest) -> bool:
    """Whether the answer becomes the page, and no part of one: as a browser says it, or htmx and Turbo for it."""
    headers = request.headers
    if "HX-Request" in headers:
        return "HX-Boosted" in headers
    if headers.get("Sec-Fetch-Dest", "document") == "document":
        return True
    return headers.get("Accept", "").startswith("text/html, application/xhtml+xml") and "Turbo-Frame" not in headers


def _is_known_page(request: HttpRequest, response: HttpResponseBase) -> bool:
    """Whether the browser shows what it has already; that answer does not say of what kind it is."""
    return response.status_code == 304 and "text/html" in request.headers.get("Accept", "")


def _is_page(response: HttpResponseBase) -> bool:
    return response.headers.get("Content-Type", "").startswith("text/html")


def _served() -> tuple[str, ...]:
    """The path prefixes of static and media files. A MEDIA_URL that is not set reads as the site's root."""
    urls = (django_settings.STATIC_URL, django_settings.MEDIA_URL)
    return tuple(url for url in urls if url and url != get_script_prefix())


def _set_cookie(request: HttpRequest, response: HttpResponseBase, name: str, value: str, age: int) -> None:
    """Give the visitor the id that this request's events carry; no shared cache may keep the answer."""
    response.set_cookie(name, value, max_age=age, secure=request.is_secure(), httponly=True, samesite="Lax")
    patch_vary_headers(response, ["Cookie"])
    memo.of(request).caching.private = True


def _sign_out(request: HttpRequest, response: HttpResponseBase, moment: str, settings: Settings) -> None:
    """Let the next page know, cached or not, that somebody else may sit there now; and end the anonymous id."""
    if any(renderer.plugin.announces_identity for renderer in host.registry.renderers):
        response.set_cookie(
            html.SIGNED_OUT_COOKIE,
            moment,
            max_age=settings.ANONYMOUS_COOKIE_AGE,
            domain=django_settings.SESSION_COOKIE_DOMAIN,
            secure=request.is_secure(),
            samesite="Lax",
        )
        memo.of(request).caching.private = True
    if settings.ANONYMOUS_COOKIE is not None and settings.ANONYMOUS_COOKIE in request.COOKIES:
        response.delete_cookie(settings.ANONYMOUS_COOKIE, samesite="Lax")
