"""What there is to know of a lane, in words: the same on all pages."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, NamedTuple

from django.template.defaultfilters import date
from django.utils import timezone
from django.utils.translation import gettext

if TYPE_CHECKING:
    from pluginhost.operations.pausing import LaneView


#: What is due is taken within a second or so; the clocks of the database and of this process may differ.
PATIENCE = dt.timedelta(minutes=1)


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
    """That the lane runs, or all that keeps it from that."""
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
    if (since := _held_up_since(lane)) is not None:
        hint = gettext("No worker has what is due in hand: none runs, or it rests because the receiver is away.")
        found.append(Condition("warning", gettext("held up"), gettext("since %s") % moment(since), hint))
    if not lane.balances:
        hint = gettext("What was accepted is not what became of it: events are missing, or there are too many.")
        found.append(Condition("error", gettext("out of balance"), hint=hint))
    return found or [Condition("good", gettext("running"))]


def _held_up_since(lane: LaneView) -> dt.datetime | None:
    """Since when something is due that no worker has taken, if that is too long to be chance."""
    if not lane.enabled or lane.paused_at is not None or lane.in_hand or not lane.waiting:
        return None
    due = lane.next_due or lane.oldest_waiting  # what no worker has even taken from the site is due at once
    if due is None or timezone.is_naive(due):  # naive times may be those of another time zone
        return None
    return due if timezone.now() - due > PATIENCE else None


def moment(time: dt.datetime) -> str:
    """A time as the admin writes times."""
    return str(date(timezone.localtime(time) if timezone.is_aware(time) else time, "DATETIME_FORMAT"))
