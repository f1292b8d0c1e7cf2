"""For templates that show a banner: ``{% if consent is None %}``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pluginhost.builtin.consent.choice import granted

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest


def consent(request: HttpRequest) -> dict[str, Callable[[], frozenset[str] | None]]:
    """What the visitor has agreed to. A function, which templates call: only pages that look at it vary by it."""
    return {"consent": partial(granted, request)}
