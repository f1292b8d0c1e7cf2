"""Who is tracked by what: the purposes that the shop asks about, and the users who want none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings

from shop.models import OptOut

if TYPE_CHECKING:
    from django.http import HttpRequest


class Purpose(NamedTuple):
    name: str
    title: str
    what: str


#: What a visitor may agree to. What is necessary is not asked about: it counts things, not people.
ASKED = (
    Purpose(
        "analytics",
        "Analytics",
        "Matomo, MongoDB and the journal: which pages and products are looked at, and on which way somebody got there.",
    ),
    Purpose(
        "marketing",
        "Marketing",
        "KISSmetrics: what one person does over weeks, on the phone and on the laptop.",
    ),
)


def has_opted_out(user: Any) -> bool:
    """Whether this user is tracked by nothing. The setting ``PLUGINHOST`` names this function."""
    return OptOut.objects.filter(user=user).exists()


def sends_gpc(request: HttpRequest) -> bool:
    """Whether the browser says by itself that nothing may be sold (Global Privacy Control)."""
    return request.headers.get("Sec-GPC") == "1"


def stand_in(request: HttpRequest) -> dict[str, str]:  # noqa: ARG001
    """Context processor: where the page is that shows what the providers got."""
    return {"stand_in": settings.STAND_IN}
