"""What the enabled plugins add to one place of one page, and what caches have to know of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.conf import settings as django_settings
from django.http import HttpRequest

from pluginhost import client, counts, dispatch, filtering, html, identity, memo
from pluginhost.options import listing

if TYPE_CHECKING:
    from django.utils.safestring import SafeString

    from pluginhost.conf import Settings
    from pluginhost.dispatch import Implementation
    from pluginhost.filtering import Verdict
    from pluginhost.registry import Registry

logger = logging.getLogger("pluginhost.html")


def render(request: HttpRequest, place: html.Place, registry: Registry, settings: Settings) -> SafeString:
    """The parts of the plugins that the filters let through, in the order of the setting.

    Raises ``ValueError`` if ``place`` is none.
    """
    if place not in html.PLACES:
        raise ValueError(f"{place!r} is no place of a page; the places are {listing(html.PLACES)}")
    request = identity.unwrapped(request)
    if not isinstance(request, HttpRequest):
        logger.error("render was given %s, which is no request", type(request).__name__)
        return html.join(())
    if not registry.renderers or _is_unforeseen(request):
        return html.join(())
    answer = filtering.verdict(registry.filters, request, None)
    user_id = None
    if _announcers(registry, answer):
        user_id = identity.page_user_id(request)
        answer = filtering.verdict(registry.filters, request, None)  # the user may just have become known
    # htmx throws the head of an answer away; what waits comes in its body then.
    waiting = [] if place == "head" and "HX-Request" in request.headers else client.take(request)
    allowed = tuple(i for i in registry.renderers if answer.allows(i.plugin.purpose))
    nonce = html.csp_nonce(request) if allowed else None  # one that is asked for appears in the page's policy
    _note(
        request,
        registry,
        answer,
        names=user_id is not None,
        carries=bool(waiting),
        carries_nonce=nonce is not None,
    )
    aliases = {renderer.alias for renderer in allowed}
    if withheld := sum(item.aliases.isdisjoint(aliases) for item in waiting):
        counts.count("filtered", withheld)
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


def _note(
    request: HttpRequest, registry: Registry, answer: Verdict, *, names: bool, carries: bool, carries_nonce: bool
) -> None:
    """Remember what the headers have to say, for the middleware to say it.

    Nothing may hand a visitor's page to another one. A nonce that a cache hands out
    again is none of the policy of that time. The answer of a filter that
    looks at the user agent is no reason to keep a copy for each of them: what such
    a one withheld is for this visitor alone.
    """
    memory = memo.of(request)
    caching = memory.caching
    caching.vary |= _headers(registry, answer)
    withheld = any(i.alias in answer.objectors for i in _looking_at_agents(registry))
    caching.private |= names or carries or withheld
    if caching.vary or caching.private or carries_nonce:
        memory.keep_from_inner_cache(request)


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


def _is_unforeseen(request: HttpRequest) -> bool:
    """Whether the headers have gone out without saying what a page with snippets needs."""
    memory = memo.of(request)
    if not memory.under_way or memory.caching.foreseen:
        return False
    logger.warning("the headers of %r have gone out, and are none of a page: no snippet is rendered", request.path)
    return True


def begin_stream(request: HttpRequest, registry: Registry, *, is_page: bool) -> None:
    """The headers go out now: note what the page, if it is one, may come to hold."""
    memory = memo.of(request)
    memory.under_way = True
    if not (is_page and registry.renderers):
        return
    caching = memory.caching
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
