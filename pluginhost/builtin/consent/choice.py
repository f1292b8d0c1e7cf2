"""What a site calls when its visitor chooses, and to find out whether one has chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.cache import patch_vary_headers

from pluginhost import filtering
from pluginhost.builtin.consent import cookie
from pluginhost.builtin.consent.plugin import Consent
from pluginhost.exceptions import ConfigurationError
from pluginhost.registry import load_registry
from pluginhost.rendering import caching_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase


def grant(response: HttpResponseBase, request: HttpRequest, purposes: Iterable[str]) -> None:
    """Keep that the visitor agrees to these purposes and to no other, in the cookie of ``response``.

    It replaces an earlier choice, and counts from now on: also for what this request
    still tracks. The cookie is Secure on https, SameSite=Lax, and readable for
    scripts, so that a banner on a cached page can look at it. Raises ``ValueError``
    for a purpose that a cookie can't hold, and ``ConfigurationError`` if the option
    COOKIE is None.
    """
    request = _inner(request)
    options = _options()
    if options.COOKIE is None:
        raise ConfigurationError(
            "The option COOKIE of the plugin consent is None.",
            id="pluginhost.E005",
            hint="Name a cookie to keep choices in.",
        )
    value = cookie.dump(purposes)
    response.set_cookie(
        options.COOKIE,
        value,
        max_age=options.COOKIE_AGE,
        domain=options.COOKIE_DOMAIN,
        secure=request.is_secure(),
        httponly=False,
        samesite="Lax",
    )
    patch_vary_headers(response, ["Cookie"])
    request.COOKIES[options.COOKIE] = value
    filtering.forget(request)


def withdraw(response: HttpResponseBase, request: HttpRequest) -> None:
    """Keep that the visitor agrees to nothing. It is a choice too: nobody has to be asked again."""
    grant(response, request, ())


def granted(request: HttpRequest) -> frozenset[str] | None:
    """The purposes that the visitor has agreed to in the cookie, or None: not asked yet.

    Whether they are allowed is another question, which Global Privacy Control, an
    opt-out or another filter may decide. ``TrackerMiddleware`` adds ``Vary: Cookie``
    to the response of a request that was asked for its choice.
    """
    request = _inner(request)
    caching = caching_of(request)
    caching.vary.add("Cookie")
    caching.keep_from_inner_cache(request)
    name = _options().COOKIE
    value = None if name is None else request.COOKIES.get(name)
    return None if value is None else cookie.parse(value)


def _inner(request: Any) -> HttpRequest:
    """Django's own request: what Django REST framework wraps."""
    inner: HttpRequest = getattr(request, "_request", request)
    return inner


def _options() -> Consent.Options:
    """The options of the first alias of this plugin; its defaults while none is enabled."""
    for loaded in load_registry().plugins.values():
        if isinstance(loaded.plugin, Consent):
            options: Consent.Options = loaded.plugin.options
            return options
    return Consent.Options()
