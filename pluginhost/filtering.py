"""Asks ``filter_request`` once a request, and combines the answers to the strictest."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from pluginhost import memo
from pluginhost.dispatch import ask, in_event_loop
from pluginhost.identity import known_user

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.http import HttpRequest

    from pluginhost.dispatch import Answer, Implementation

logger = logging.getLogger("pluginhost.filter")


class Verdict(msgspec.Struct, frozen=True):
    """What all filters together say."""

    allowed: frozenset[str] | bool = True
    """True is everything, a frozenset those purposes, False nothing."""
    objectors: frozenset[str] = frozenset()
    """The aliases that keep something out."""

    def allows(self, purpose: str) -> bool:
        """Whether a plugin of this purpose may have it."""
        return purpose in self.allowed if isinstance(self.allowed, frozenset) else self.allowed


NO_OBJECTION = Verdict()


def combine(answers: Iterable[Answer]) -> Verdict:
    """The strictest of all answers. An answer of another kind is logged and has no opinion."""
    allowed: frozenset[str] | bool = True
    objectors: set[str] = set()
    for alias, value in answers:
        if value is False:
            return Verdict(False, frozenset({*objectors, alias}))
        if isinstance(value, (frozenset, set)):
            allowed = allowed & value if isinstance(allowed, frozenset) else frozenset(value)
            objectors.add(alias)
        elif value is not None and value is not True:
            logger.error("plugin %s: filter_request gave a %s; it has no opinion", alias, type(value).__name__)
    return Verdict(allowed, frozenset(objectors))


def verdict(filters: tuple[Implementation, ...], request: HttpRequest | None, user: Any) -> Verdict:
    """Ask all filters, or remember what they said of this request while its user is the same."""
    if not filters:
        return NO_OBJECTION
    if request is None:
        return combine(ask("filter_request", filters, request=None, user=user))
    memory = memo.of(request)
    user = known_user(request)
    for _ in range(2):  # a filter may find out the user, whom the others have not seen then
        who = user.__class__, getattr(user, "pk", None)
        if memory.verdict is not None and memory.verdict[0] == who:
            return memory.verdict[1]
        answer = combine(ask("filter_request", filters, request=request, user=user))
        if not in_event_loop():  # where a filter may not find out what it needs; a thread asks it again
            memory.verdict = who, answer
        asked, user = user, known_user(request)
        if user is asked:
            break
    return answer


def forget(request: HttpRequest) -> None:
    """Ask the filters anew: what they look at has changed during the request, such as a consent."""
    memo.of(request).verdict = None
