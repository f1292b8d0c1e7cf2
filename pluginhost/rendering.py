"""What the enabled plugins add to one place of one page, and what caches have to know of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from django.conf import settings as django_settings
from django.utils.cache import patch_cache_control, patch_vary_headers

from pluginhost import client, counts, dispatch, filtering, html, identity
from pluginhost.options import listing

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase
    from django.utils.safestring import SafeString

    from pluginhost.conf import Settings
    from pluginhost.dispatch import Implementation
    from pluginhost.filtering import Verdict
    from pluginhost.registry import Registry

logger = logging.getLogger("pluginhost.html")


@dataclass
class Caching:
    """What the headers of a page have to say because of what was rendered into it."""

    vary: set[str] = field(default_factory=set)
    private: bool = False
    """The page is for this visitor alone."""
    foreseen: bool = False
    """The headers have gone out, and say what a page may need that is rendered from now on."""
    _stored_before: bool | None = None

    def keep_from_inner_cache(self, request: HttpRequest) -> None:
        """Keep a view's own ``cache_page`` from storing the page: it would not see the headers in time.

        The attribute is how Django's cache middleware tells itself what not to store.
        """
        if self._stored_before is None and hasattr(request, "_cache_update_cache"):
            self._stored_before = request._cache_update_cache
            request._cache_update_cache = False

    def patch(self, request: HttpRequest, response: HttpResponseBase) -> None:
        """Add the headers. Caches further out see them, and decide by them."""
        if self._stored_before is not None:
            request._cache_update_cache = self._stored_before  # type: ignore[attr-defined]
        if self.vary:
            patch_vary_headers(response, sorted(self.vary))
        if self.private:
            patch_cache_control(response, private=True)


def render(request: HttpRequest, place: html.Place, registry: Registry, settings: Settings) -> SafeString:
    """The parts of the plugins that the filters let through, in the order of the setting.

    Raises ``ValueError`` if ``place`` is none.
    """
    if place not in html.PLACES:
        raise ValueError(f"{place!r} is no place of a page; the places are {listing(html.PLACES)}")
    request = identity.unwrapped(request)
    if not registry.renderers or _is_unforeseen(request):
        return html.join(())
    answer = filtering.verdict(registry.filters, request, None)
    user_id = None
    if _announcers(registry, answer):
        user_id = identity.page_user_id(request)
        answer = filtering.verdict(registry.filters, request, None)  # the user may just have become known
    waiting = client.take(request)
    allowed = tuple(i for i in registry.renderers if answer.allows(i.plugin.purpose))
    _note(request, registry, answer, names=user_id is not None, carries=bool(waiting))
    aliases = {renderer.alias for renderer in allowed}
    if withheld := sum(item.aliases.isdisjoint(aliases) for item in waiting):
        counts.count("filtered", withheld)
    nonce = html.csp_nonce(request) if allowed else None  # one that is asked for appears in the page's policy
    parts = []
    for renderer in allowed:
        page = html.Page(
            place=place,
            nonce=nonce,
            identity=user_id if renderer.plugin.announces_identity else None,
            events=tuple(item.event for item in waiting if renderer.alias in item.aliases),
            counts_view=settings.PAGE_VIEWS == "browser",
        )
        parts += _part(renderer, request, page)
    return html.join(parts)


def _part(renderer: Implementation, request: HttpRequest, page: html.Page) -> list[SafeString]:
    answers = list(dispatch.ask("render_client", (renderer,), request=request, page=page))
    parts = [answer.value for answer in answers if html.accepted(answer)]
    if page.events and not parts:
        counts.count("lost", len(page.events))
        logger.error("plugin %s: %d waiting events are lost: it rendered nothing", renderer.alias, len(page.events))
    return parts


def _announcers(registry: Registry, answer: Verdict) -> list[Implementation]:
    return [i for i in registry.renderers if i.plugin.announces_identity and answer.allows(i.plugin.purpose)]


def _note(request: HttpRequest, registry: Registry, answer: Verdict, *, names: bool, carries: bool) -> None:
    """Remember what the headers have to say, for the middleware to say it.

    Nothing may hand a visitor's page to another one. The answer of a filter that
    looks at the user agent is no reason to keep a copy for each of them: what such
    a one withheld is for this visitor alone.
    """
    caching = caching_of(request)
    caching.vary |= _headers(registry, answer)
    withheld = any(i.alias in answer.objectors for i in _looking_at_agents(registry))
    caching.private |= names or carries or withheld
    if caching.vary or caching.private:
        caching.keep_from_inner_cache(request)


def _headers(registry: Registry, answer: Verdict | None) -> set[str]:
    """The request's headers that a page of these plugins depends on."""
    headers = {header for i in registry.filters for header in i.plugin.varies_on if not _is_agent(header)}
    if _announcers(registry, answer or filtering.NO_OBJECTION):
        headers.add("Cookie")
    return headers


def _looking_at_agents(registry: Registry) -> tuple[Implementation, ...]:
    return tuple(i for i in registry.filters if any(map(_is_agent, i.plugin.varies_on)))


def _is_agent(header: str) -> bool:
    return header.lower() == "user-agent"


def caching_of(request: HttpRequest) -> Caching:
    """What is known so far of this request's page."""
    caching: Caching = request.__dict__.setdefault("_pluginhost_caching", Caching())
    return caching


def _is_unforeseen(request: HttpRequest) -> bool:
    """Whether the headers have gone out without saying what a page with snippets needs."""
    if not client.is_under_way(request) or caching_of(request).foreseen:
        return False
    logger.warning("the headers of %s have gone out, and are none of a page: no snippet is rendered", request.path)
    return True


def begin_stream(request: HttpRequest, registry: Registry, *, is_page: bool) -> None:
    """The headers go out now: note what the page, if it is one, may come to hold."""
    client.note_under_way(request)
    if not (is_page and registry.renderers):
        return
    caching = caching_of(request)
    caching.foreseen = True
    caching.vary |= _headers(registry, None)
    caching.private |= _is_for_robots(request, registry)
    if _may_have_session(request):
        caching.private = True
        caching.vary.add("Cookie")


def _may_have_session(request: HttpRequest) -> bool:
    """Whether the visitor may have a name or waiting events: with this request, or since."""
    session = getattr(request, "session", None)
    return (
        django_settings.SESSION_COOKIE_NAME in request.COOKIES
        or (session is not None and client.is_modified(session))
        or identity.user_id_of(identity.known_user(request)) is not None
    )


def _is_for_robots(request: HttpRequest, registry: Registry) -> bool:
    """Whether something will be withheld because of the user agent.

    The other filters are not asked: in an event loop one of them might not be able
    to answer, and that would be remembered for the page.
    """
    concerned = _looking_at_agents(registry)
    user = identity.known_user(request)
    answer = filtering.combine(dispatch.ask("filter_request", concerned, request=request, user=user))
    return bool(answer.objectors)
