"""What is stored can't be taken back: addresses are shortened and URLs lose what could be a secret first."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, unquote_plus, urlencode, urlsplit

import msgspec
from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.urls import Resolver404, get_urlconf, resolve
from django.utils import translation

from pluginhost.conf import CAMPAIGN_PARAMETERS

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.urls import ResolverMatch

    from pluginhost.conf import Settings

#: Longer text is no address.
MAX_ADDRESS = 64
#: Longer text is cut: it comes from the visitor's side, and nothing depends on its end.
MAX_HEADER = 512
MAX_URL = 2048


def header(value: str | None, limit: int = MAX_HEADER) -> str | None:
    """A header's text without control characters, cut to ``limit`` characters; None if it is empty."""
    if not value:
        return None
    text = value[:limit]
    if not text.isprintable():
        text = "".join(filter(str.isprintable, text))
    return text or None


@lru_cache(maxsize=2048)
def address(value: str, keep: str) -> str | None:
    """An IP address, shortened to its network (v4 /24, v6 /48) unless ``keep`` is ``full``; None if it is none."""
    text = value.strip()
    if text.startswith("["):  # [2001:db8::1]:443
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # 192.0.2.1:443
        text = text.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    if keep == "full":
        return str(parsed)
    prefix = 24 if parsed.version == 4 else 48
    return str(ipaddress.ip_network((parsed, prefix), strict=False).network_address)


def client_address(remote: str, forwarded: str, settings: Settings) -> str | None:
    """The visitor's address as far as it can be believed.

    ``REMOTE_ADDR``; with n trusted proxies, the n-th entry of ``X-Forwarded-For``
    from the right. Everything left of that was written by the visitor. A request
    with fewer entries did not pass all the proxies, and its header is not believed.
    """
    if settings.IP == "none":
        return None
    chosen = remote
    if settings.TRUSTED_PROXIES and forwarded:
        hops = forwarded.split(",")
        if len(hops) >= settings.TRUSTED_PROXIES:
            chosen = hops[-settings.TRUSTED_PROXIES]
    return address(chosen, settings.IP) if len(chosen) <= MAX_ADDRESS else None


def query(text: str, settings: Settings) -> str:
    """The query string with only the campaign parameters and those that the project allows."""
    if not text:
        return ""
    allowed = settings.QUERY_PARAMETERS
    kept = []
    for pair in text[: 4 * MAX_URL].split("&"):
        name = pair.partition("=")[0]
        if "%" in name or "+" in name:
            name = unquote_plus(name)
        if name in CAMPAIGN_PARAMETERS or name in allowed:
            kept.append(pair)
    return _encoded("&".join(kept)) if kept else ""


@lru_cache(maxsize=256)
def _encoded(text: str) -> str:
    """A query string as browsers write it. Many visitors come from one campaign; other parameters do not get here."""
    return urlencode(parse_qsl(text, keep_blank_values=True), errors="replace")


class Site(msgspec.Struct, frozen=True):
    """What decides which route a path leads to, and whether that captures a secret."""

    prefix: str
    """What all paths begin with, such as ``/`` or ``/shop/``."""
    urlconf: Any
    """None: the project's."""
    language: str | None
    """The page's. A referrer may be in another one."""
    secret: frozenset[str]


def site_of(request: HttpRequest, settings: Settings) -> Site:
    """The site as this request sees it."""
    prefix = request.META.get("SCRIPT_NAME") or ""  # where WSGI's and ASGI's requests have it, FORCE_SCRIPT_NAME too
    if not prefix.endswith("/"):
        prefix += "/"
    urlconf = getattr(request, "urlconf", None) or get_urlconf()
    return Site(prefix, urlconf, translation.get_language(), settings.SECRET_ROUTE_ARGUMENTS)


def path(value: str, site: Site, match: ResolverMatch | None = None) -> str:
    """The path, or its route pattern where the route captures a secret (``/reset/<uidb64>/<token>/``).

    ``match`` is what Django resolved the path to, if it has done so already.
    """
    if match is None:
        return _secret_route(value, site) or value[:MAX_URL]
    if site.secret.isdisjoint(match.kwargs):
        return value[:MAX_URL]
    return f"{site.prefix}{match.route}"


@lru_cache(maxsize=1024)
def _secret_route(value: str, site: Site) -> str | None:
    """The pattern of the route that a path leads to, if it captures a secret.

    A path of ``i18n_patterns`` resolves only in its own language, and that of the
    project may be in no path.
    """
    found = translation.get_language_from_path(value)
    for language in [found] if found else dict.fromkeys((site.language, django_settings.LANGUAGE_CODE)):
        with translation.override(language):
            if route := _secret_route_here(value, site):
                return route
    return None


def _secret_route_here(value: str, site: Site) -> str | None:
    """The same in the active language."""
    inner = f"/{value[len(site.prefix) :]}" if value.startswith(site.prefix) else value
    # A path that lacks only its last slash is redirected by CommonMiddleware, with the secret still in it; one with a
    # slash too many leads nowhere, and has it too.
    inner = f"/{inner.lstrip('/')}"
    for candidate in (inner, f"{inner}/"):
        try:
            match = resolve(candidate, site.urlconf or django_settings.ROOT_URLCONF)
        except Resolver404:
            continue
        return None if site.secret.isdisjoint(match.kwargs) else f"{site.prefix}{match.route}"
    return None


def url(value: str | None, site: Site, settings: Settings) -> str | None:
    """Scrub a whole URL, such as a referrer.

    Paths are treated as in ``path``, whatever the host: a site often has several names.
    """
    if not value:
        return None
    before_fragment = value[: 2 * MAX_URL].partition("#")[0]
    address, _, text = before_fragment.partition("?")
    kept = _web_address(address, site)
    if kept is None:
        return None
    parameters = query(text, settings) if text else ""
    return header(f"{kept}?{parameters}" if parameters else kept, MAX_URL)


@lru_cache(maxsize=256)
def _web_address(value: str, site: Site) -> str | None:
    """Scheme, host and scrubbed path, without user and password; None if it is no address of the web."""
    try:
        parts = urlsplit(value)
        host = parts.hostname
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host:
        return None
    path = _secret_route(unquote(parts.path), site) or parts.path
    return f"{parts.scheme}://[{host}]{port}{path}" if ":" in host else f"{parts.scheme}://{host}{port}{path}"


#: The settings that what is remembered of routes depends on, beside our own.
_ROUTING = ("LANGUAGES", "LANGUAGE_CODE", "ROOT_URLCONF", "USE_I18N")


def _forget_routes(*, setting: str, **_: Any) -> None:
    if setting in _ROUTING:
        _secret_route.cache_clear()
        _web_address.cache_clear()


setting_changed.connect(_forget_routes, dispatch_uid="pluginhost.scrubbing")
