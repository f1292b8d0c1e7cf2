"""What around the host makes it work well: the middleware, and lists that replace ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as Caution

from pluginhost.conf import MASKED_NAMES, SECRET_ROUTE_ARGUMENTS, get_settings
from pluginhost.exceptions import ConfigurationError
from pluginhost.options import listing
from pluginhost.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.apps import AppConfig

    from pluginhost.conf import Settings

MIDDLEWARE = "pluginhost.middleware.TrackerMiddleware"
#: What has to see the final headers, and so comes before our middleware.
BEFORE = ("django.middleware.cache.UpdateCacheMiddleware", "django.middleware.gzip.GZipMiddleware")


@register("pluginhost")
def check_site(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001
    """What around the host makes it work well."""
    try:
        settings = get_settings()
    except ConfigurationError:
        return []  # reported by check_plugins
    return [
        *_middleware_messages(),
        *_snippet_messages(),
        *_privacy_messages(settings),
    ]


def _middleware_messages() -> Iterator[CheckMessage]:
    middleware = list(django_settings.MIDDLEWARE)
    settings = get_settings()
    if MIDDLEWARE not in middleware:
        needing = [
            name
            for name, needed in (
                ("ANONYMOUS_COOKIE", settings.ANONYMOUS_COOKIE is not None),
                ("PAGE_VIEWS", settings.PAGE_VIEWS == "server"),
            )
            if needed
        ]
        if needing:
            yield Error(
                f"PLUGINHOST[{needing[0]!r}] is set, but MIDDLEWARE lacks what carries it out.",
                hint=f'Add "{MIDDLEWARE}" to MIDDLEWARE, at its beginning.',
                id="pluginhost.E010",
            )
        return
    place = middleware.index(MIDDLEWARE)
    for other in BEFORE:
        if other in middleware[place:]:
            yield Caution(
                f"{other} comes after {MIDDLEWARE}.",
                hint="Move it before: it has to see the headers of the finished response.",
                id="pluginhost.W002",
            )


def _snippet_messages() -> Iterator[CheckMessage]:
    snippets = [i.alias for i in load_registry().renderers]
    if snippets and MIDDLEWARE not in django_settings.MIDDLEWARE:
        yield Caution(
            f"There is a snippet of {listing(snippets)}, but MIDDLEWARE lacks {MIDDLEWARE}.",
            hint="Add it at the beginning: it tells caches which pages depend on the visitor, and the next page of a"
            " log-out.",
            id="pluginhost.W006",
        )


def _privacy_messages(settings: Settings) -> Iterator[CheckMessage]:
    """A list of the project's own replaces ours; this is for those who meant to add to it."""
    for key, ours in (("MASKED_NAMES", MASKED_NAMES), ("SECRET_ROUTE_ARGUMENTS", SECRET_ROUTE_ARGUMENTS)):
        if missing := sorted(set(ours) - getattr(settings, key)):
            yield Caution(
                f"PLUGINHOST[{key!r}] replaces the list of pluginhost.conf and lacks: {', '.join(missing)}.",
                hint=f"To add to it, write [*pluginhost.conf.{key}, ...]; if you mean it, silence this check.",
                id="pluginhost.W005",
            )
