"""What a site has beside the host: a Content-Security-Policy, and users of any kind."""

from __future__ import annotations

import secrets
from types import SimpleNamespace
from typing import TYPE_CHECKING

from django.conf import settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse


def policy(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """``BROWSER_POLICY`` is the header, with ``{nonce}`` for this page's nonce; None: there is none."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if settings.BROWSER_POLICY is None:
            return get_response(request)
        request.csp_nonce = secrets.token_urlsafe(16)
        response = get_response(request)
        response["Content-Security-Policy"] = settings.BROWSER_POLICY.format(nonce=request.csp_nonce)
        return response

    return middleware


def careless_cache(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """With ``BROWSER_IGNORES_VARY`` what comes after is a browser or a cache that does not know of Vary."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if settings.BROWSER_IGNORES_VARY:
            del response["Vary"]
        return response

    return middleware


def user(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """``BROWSER_USER`` is the key of the user who sends each request; None: the session says who does."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if settings.BROWSER_USER is not None:
            request.user = SimpleNamespace(is_authenticated=True, pk=settings.BROWSER_USER)
        return get_response(request)

    return middleware
