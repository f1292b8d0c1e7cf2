"""What there is to know of a lane, in words: the same on all pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from django.template.defaultfilters import date
from django.utils import timezone
from django.utils.translation import gettext

if TYPE_CHECKING:
    import datetime as dt

    from pluginhost.delivery.pausing import LaneView


class Condition(NamedTuple):
    """One thing to know of a lane."""

    level: str
    """``good``, ``warning`` or ``error``: a class of the style sheet."""
    word: str
    text: str = ""
    """Since when, and why."""
    hint: str = ""
    """What it means, where there is room for it."""


def conditions(lane: LaneView) -> list[Condition]:
    """That the lane works, or all that keeps it from that."""
    found = []
    if not lane.enabled:
        hint = gettext("No enabled alias has this name. What waits here waits until one has.")
        found.append(Condition("warning", gettext("not enabled"), hint=hint))
    if lane.paused_at is not None:
        text = gettext("since %s") % moment(lane.paused_at)
        if lane.paused_because:
            text = gettext("%(since)s: %(because)s") % {"since": text, "because": lane.paused_because}
        found.append(Condition("warning", gettext("paused"), text))
    if lane.trouble:
        text = lane.trouble
        if lane.trouble_at is not None:
            text = gettext("%(when)s: %(what)s") % {"when": moment(lane.trouble_at), "what": lane.trouble}
        found.append(Condition("error", gettext("trouble"), text))
    if not lane.balances:
        hint = gettext("What was accepted is not what became of it: events are missing, or there are too many.")
        found.append(Condition("error", gettext("out of balance"), hint=hint))
    return found or [Condition("good", gettext("working"))]


def moment(time: dt.datetime) -> str:
    """A time as the admin writes times."""
    return str(date(timezone.localtime(time) if timezone.is_aware(time) else time, "DATETIME_FORMAT"))
