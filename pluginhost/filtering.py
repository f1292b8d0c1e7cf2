"""Asks ``filter_request`` once a request, and combines the answers to the strictest."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pluginhost.dispatch import ask
from pluginhost.identity import known_user

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.http import HttpRequest

    from pluginhost.dispatch import Answer, Implementation

logger = logging.getLogger("pluginhost.filter")

#: What may pass: None is everything, a frozenset those purposes, False nothing.
Verdict = frozenset[str] | None | bool


def combine(answers: Iterable[Answer]) -> Verdict:
    """The strictest of all answers. An answer of another kind is logged and has no opinion."""
    allowed: frozenset[str] | None = None
    for alias, value in answers:
        if value is False:
            return False
        if isinstance(value, (frozenset, set)):
            allowed = frozenset(value) if allowed is None else allowed & value
        elif value is not None and value is not True:
            logger.error("plugin %s: filter_request gave a %s; it has no opinion", alias, type(value).__name__)
    return allowed


def verdict(filters: tuple[Implementation, ...], request: HttpRequest | None, user: Any) -> Verdict:
    """Ask all filters, or remember what they said of this request while its user is the same."""
    if not filters:
        return None
    if request is None:
        return combine(ask("filter_request", filters, request=None, user=user))
    user = known_user(request)
    who = user.__class__, getattr(user, "pk", None)
    remembered = getattr(request, "_pluginhost_verdict", None)
    if remembered is None or remembered[0] != who:
        remembered = (who, combine(ask("filter_request", filters, request=request, user=user)))
        request._pluginhost_verdict = remembered  # type: ignore[attr-defined]
    answer: Verdict = remembered[1]
    return answer


def allows(answer: Verdict, purpose: str) -> bool:
    """Whether a verdict lets a plugin of this purpose through."""
    if isinstance(answer, frozenset):
        return purpose in answer
    return answer is not False
