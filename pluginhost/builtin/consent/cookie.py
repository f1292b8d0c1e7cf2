"""The value of the consent cookie: ``1:analytics.marketing``. Pure.

A version of the format, a colon, and the purposes that were agreed to with dots
between them; ``1:`` is a refusal. Anything else is no choice at all, and grants
nothing: the visitor writes this text, or a script on the page.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LENGTH = 512
_PURPOSE = r"[a-z][a-z0-9_-]{0,31}"
PURPOSE = re.compile(_PURPOSE)
_VALUE = re.compile(rf"1:(?:{_PURPOSE}(?:\.{_PURPOSE})*)?")


@lru_cache(maxsize=1024)
def parse(value: str) -> frozenset[str] | None:
    """The purposes that were agreed to, or None if the value is not one that ``dump`` writes."""
    if len(value) > MAX_LENGTH or not _VALUE.fullmatch(value):
        return None
    return frozenset(filter(None, value[2:].split(".")))


def dump(purposes: Iterable[str]) -> str:
    """The value for these purposes.

    Raises ``ValueError`` if one of them has other characters than small letters,
    digits, ``_`` and ``-``, or over 32 of them, or if they are too many for a cookie.
    """
    if isinstance(purposes, str):
        raise TypeError(f"purposes are given as a list, not as the text {purposes!r}")
    chosen = sorted(set(purposes))
    for purpose in chosen:
        if not PURPOSE.fullmatch(purpose):
            raise ValueError(
                f"{purpose!r} is no purpose: at most 32 small letters, digits, _ and -, and a letter first"
            )
    value = f"1:{'.'.join(chosen)}"
    if len(value) > MAX_LENGTH:
        raise ValueError(f"{len(chosen)} purposes are too many for a cookie")
    return value
