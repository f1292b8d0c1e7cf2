"""Whether a user agent is on a list. Pure: no settings, no database."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Of a longer user agent only the beginning is looked at and remembered.
MAX_USER_AGENT = 512
#: So many user agents are remembered: with the longest ones some 3 MB.
REMEMBERED = 4096


def matcher(rows: Iterable[tuple[str, str]]) -> Callable[[str], bool]:
    """A function that says whether a user agent matches one of these rows of kind and text, ignoring case.

    A row without text, or of an unknown kind, matches nothing.
    """
    given = [(kind, text.lower()) for kind, text in rows if text]
    contained = [text for kind, text in given if kind == "contains"]
    starts = tuple(text for kind, text in given if kind == "starts")
    exact = frozenset(text for kind, text in given if kind == "is")

    @lru_cache(REMEMBERED)
    def matches(user_agent: str) -> bool:
        lowered = user_agent.lower()
        return lowered in exact or lowered.startswith(starts) or any(text in lowered for text in contained)

    return matches


def compiled(option: str, patterns: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    """The regular expressions of an option, ignoring case.

    Raises ``ValueError`` with the option and the pattern if one is none, or matches everything.
    """
    made = []
    for pattern in patterns:
        try:
            expression = re.compile(pattern, re.IGNORECASE)
        except re.error as error:
            raise ValueError(f"{option}: {pattern!r} is no regular expression: {error}") from None
        if expression.search(""):
            raise ValueError(f"{option}: {pattern!r} matches every user agent, even an empty one")
        made.append(expression)
    return tuple(made)


def found(expressions: Iterable[re.Pattern[str]], user_agent: str) -> bool:
    """Whether one of the expressions is found in the user agent."""
    return any(expression.search(user_agent) for expression in expressions)
