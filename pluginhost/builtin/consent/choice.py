"""What a site calls when its visitor chooses, and to find out whether one has chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils.cache import patch_vary_headers

from pluginhost import filtering, identity, memo
from pluginhost.builtin.consent import cookie
from pluginhost.builtin.consent.plugin import Consent, answers_of_users
from pluginhost.conf import get_settings
from pluginhost.exceptions import ConfigurationError
from pluginhost.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase


def grant(response: HttpResponseBase, request: HttpRequest, purposes: Iterable[str]) -> None:
    """Keep that the visitor agrees to these purposes and to no other, in the cookie of ``response``.

    It replaces an earlier choice, and counts from now on: also for what this request
    still tracks. If nothing that it leaves allowed delivers personal data, the host's
    anonymous cookie is deleted. The cookie is Secure on https, SameSite=Lax, and readable for
    scripts, so that a banner on a cached page can look at it. Raises ``ValueError``
    for a purpose that a cookie can't hold, and ``ConfigurationError`` if the option
    COOKIE is None.
    """
    request = identity.unwrapped(request)
    plugin = _plugin()
    options = _options(plugin)
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
    answers_of_users(request).clear()
    filtering.forget(request)
    if plugin is not None and not _may_mark(plugin.allowed_by_browser(request)):
        _end_anonymous_id(response, request)


def withdraw(response: HttpResponseBase, request: HttpRequest) -> None:
    """Keep that the visitor agrees to nothing. It is a choice too: nobody has to be asked again."""
    grant(response, request, ())


def granted(request: HttpRequest) -> frozenset[str] | None:
    """The purposes that the visitor has agreed to in the cookie, or None: not asked yet.

    Whether they are allowed is another question, which Global Privacy Control, an
    opt-out or another filter may decide. ``TrackerMiddleware`` adds ``Vary: Cookie``
    to the response of a request that was asked for its choice.
    """
    request = identity.unwrapped(request)
    memory = memo.of(request)
    memory.caching.vary.add("Cookie")
    memory.keep_from_inner_cache(request)
    name = _options(_plugin()).COOKIE
    value = None if name is None else request.COOKIES.get(name)
    return None if value is None else cookie.parse(value)


def _may_mark(allowed: frozenset[str]) -> bool:
    """Whether a plugin of these purposes is a reason to know a browser again."""
    plugins = (loaded.plugin for loaded in load_registry().plugins.values() if loaded.deliver)
    return any(plugin.personal_data and plugin.purpose in allowed for plugin in plugins)


def _end_anonymous_id(response: HttpResponseBase, request: HttpRequest) -> None:
    """Delete the host's cookie where the middleware sets it, and keep its id out of this request's next events."""
    memo.of(request).new_id = None
    name = get_settings().ANONYMOUS_COOKIE
    if name is not None and name in request.COOKIES:
        response.delete_cookie(name, samesite="Lax")
        request.COOKIES[name] = ""  # not taken away: another response of this request has to delete it too


def _plugin() -> Consent | None:
    """The first alias of this plugin, if one is enabled."""
    plugins = (loaded.plugin for loaded in load_registry().plugins.values())
    return next((plugin for plugin in plugins if isinstance(plugin, Consent)), None)


def _options(plugin: Consent | None) -> Consent.Options:
    """The options of the plugin; its defaults while none is enabled."""
    if plugin is None:
        return Consent.Options()
    options: Consent.Options = plugin.options
    return options
