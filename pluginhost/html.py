"""From ``render_client`` to the page: only safe strings, in the order of the setting."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from django.utils.safestring import SafeString, mark_safe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.http import HttpRequest

    from pluginhost.dispatch import Answer

logger = logging.getLogger("pluginhost.html")

Place = Literal["head", "body"]


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin may know of the page that it renders into."""

    place: Place
    nonce: str | None = None
    """The nonce of the page's Content-Security-Policy, if it has one."""


def csp_nonce(request: HttpRequest) -> str | None:
    """The request's CSP nonce: of Django's own middleware (6.0 and later) or of django-csp, else None."""
    try:
        from django.middleware.csp import get_nonce  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        nonce: Any = None
    else:
        nonce = get_nonce(request)
    if nonce is None:
        nonce = getattr(request, "csp_nonce", None)
    return None if nonce is None else str(nonce)


def join(answers: Iterable[Answer]) -> SafeString:
    """Join the plugins' parts of one place; a part that is no safe string is left out and logged."""
    parts = []
    for alias, part in answers:
        if part is None:
            continue
        if not isinstance(part, SafeString):
            logger.error("plugin %s: render_client gave %s, not a safe string; left out", alias, type(part).__name__)
            continue
        parts.append(part)
    return mark_safe("\n".join(parts))  # noqa: S308 - every part was checked above
