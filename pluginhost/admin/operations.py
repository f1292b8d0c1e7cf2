"""What is done from the admin: asked for, done, told to who did it, and written into the history of each lane."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace as but
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.admin.widgets import AdminTextInputWidget
from django.core import signing
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from pluginhost.admin.conditions import conditions
from pluginhost.api import host
from pluginhost.models import Delivery, Lane
from pluginhost.operations import letters, pausing
from pluginhost.operations.pausing import MAX_BECAUSE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from django.http import HttpRequest, HttpResponse
    from django.utils.functional import _StrPromise

    from pluginhost.admin.base import OutboxAdmin

#: Above so many events the page that asks says that the command is better suited.
MANY = 100_000
#: The salt of the signature of what a page that asks has shown.
BOUND = "pluginhost.admin.bound"
LOST = _("These events are deleted for good, and never arrive. What other lanes have of them stays.")


class PauseForm(forms.Form):
    reason = forms.CharField(
        label=_("Reason"),
        help_text=_("For whoever finds the lane paused."),
        max_length=MAX_BECAUSE,
        required=False,
        widget=AdminTextInputWidget,
    )


class ReplayForm(forms.Form):
    rate = forms.FloatField(
        label=_("Events a second"),
        help_text=_("So many of each lane come due, for a receiver that cannot take all at once. Empty: no limit."),
        min_value=letters.SLOWEST,
        required=False,
        widget=forms.NumberInput(attrs={"min": 0, "step": "any"}),
    )


def confirm(
    admin: OutboxAdmin,
    request: HttpRequest,
    *,
    action: str,
    title: _StrPromise,
    form: forms.Form,
    lanes: Iterable[str],
    counts: Mapping[str, int] | None,
    yes: str,
    back: str,
    died_before: dt.datetime | None = None,
    warning: _StrPromise | None = None,
) -> HttpResponse:
    """The page that asks whether it is meant. It sends the same selection again, with ``post`` and the form's fields.

    ``counts`` says how many events of which lane it is about, ``yes`` is on the button,
    ``warning`` says what is lost. What dies at ``died_before`` or later was not shown,
    and so is not meant: ``bound`` gives it back.
    """
    views = {view.lane: view for view in pausing.overview(host.database())}
    total = None if counts is None else sum(counts.values())
    rows = [
        {"name": lane, "count": (counts or {}).get(lane, 0), "conditions": conditions(views[lane])}
        for lane in lanes
        if lane in views
    ]
    return admin.page(
        request,
        "confirmation.html",
        title=title,
        original=title,
        action=action,
        warning=warning,
        form=form,
        lanes=rows,
        total=total,
        yes=yes,
        many=(total or 0) > MANY,
        # Not all that is selected may fit into a form: which rows are meant by "all", the address says.
        selected=request.POST.getlist(ACTION_CHECKBOX_NAME),
        select_across=request.POST.get("select_across", "0"),
        died_before=signing.dumps(died_before.isoformat(), salt=BOUND) if died_before else "",
        back=back,
    )


def bound(request: HttpRequest) -> dt.datetime | None:
    """The dead letters that are meant died before that time: what the page that asked has shown.

    If no page has asked, what is dead now. None if nothing is, or if the page's word is not ours.
    """
    if "died_before" not in request.POST:
        return letters.up_to_now(letters.Selection(), host.database()).died_before
    try:
        return dt.datetime.fromisoformat(signing.loads(request.POST["died_before"], salt=BOUND))
    except signing.BadSignature:
        return None


def replay_how_many(n: int) -> str:
    return ngettext("Replay %d event", "Replay %d events", n) % n


def discard_how_many(n: int) -> str:
    return ngettext("Discard %d event", "Discard %d events", n) % n


def replay(request: HttpRequest, selection: letters.Selection, rate: float | None = None) -> None:
    """Replay dead letters."""
    using = host.database()
    which = _which(selection, using)
    replayed = forgotten = 0
    for lane in letters.count(selection, using):
        done = letters.replay_or_forget(but(selection, lanes=(lane,)), using, rate=rate)
        if n := done.replayed:
            text = ngettext("Replayed %(n)d dead letter%(which)s.", "Replayed %(n)d dead letters%(which)s.", n)
            log(request, lane, text % {"n": n, "which": which})
        if n := done.forgotten:
            text = ngettext(
                "Discarded %d dead letter of people who have been forgotten.",
                "Discarded %d dead letters of people who have been forgotten.",
                n,
            )
            log(request, lane, text % n, DELETION)
        replayed, forgotten = replayed + done.replayed, forgotten + done.forgotten
    n = replayed
    tell(request, ngettext("%d event waits again.", "%d events wait again.", n) % n, good=n > 0)
    if n := forgotten:
        text = ngettext(
            "%d event was discarded: its person has been forgotten since.",
            "%d events were discarded: their people have been forgotten since.",
            n,
        )
        tell(request, text % n, good=False)


def discard(request: HttpRequest, selection: letters.Selection) -> None:
    """Discard dead letters, or what waits."""
    using = host.database()
    which = _which(selection, using)
    n = 0
    for lane in letters.count(selection, using):
        of_lane = letters.discard(but(selection, lanes=(lane,)), using, reason="discarded in the admin")
        if not of_lane:  # somebody was faster
            continue
        n += of_lane
        if selection.state == Delivery.State.DEAD:
            text = ngettext(
                "Discarded %(n)d dead letter%(which)s.", "Discarded %(n)d dead letters%(which)s.", of_lane
            )  # fmt: skip
        else:
            text = ngettext("Discarded %(n)d waiting event.", "Discarded %(n)d waiting events.", of_lane)
        log(request, lane, text % {"n": of_lane, "which": which}, DELETION)
    tell(request, ngettext("%d event was discarded.", "%d events were discarded.", n) % n, good=n > 0)


def pause(request: HttpRequest, lanes: list[str], because: str) -> None:
    """Pause lanes."""
    for lane in lanes:
        pausing.pause(lane, host.database(), because)
        log(request, lane, gettext("Paused: %s") % because if because else gettext("Paused."))
    tell(request, ngettext("%d lane is paused.", "%d lanes are paused.", len(lanes)) % len(lanes))


def resume(request: HttpRequest, lanes: list[str]) -> None:
    """Resume lanes."""
    for lane in lanes:
        pausing.resume(lane, host.database())
        log(request, lane, gettext("Resumed."))
    tell(request, ngettext("%d lane goes on.", "%d lanes go on.", len(lanes)) % len(lanes))


def tell(request: HttpRequest, text: str, *, good: bool = True) -> None:
    """Show a message on the next page."""
    messages.add_message(request, messages.SUCCESS if good else messages.WARNING, text)


def log(request: HttpRequest, lane: str, text: str, flag: int = CHANGE) -> None:
    """Write into the lane's history who did this."""
    who: Any = request.user.pk
    # Many lanes have no row; the history goes by the name.
    LogEntry.objects.log_actions(who, [Lane(name=lane)], flag, text, single_object=True)


def _which(selection: letters.Selection, using: str) -> str:
    """The event, if it is a single one."""
    if len(selection.ids) != 1:
        return ""
    found = letters.select(selection, using).values_list("event_name", "message_id").first()
    return f": {' '.join(text for text in found if text)}".rstrip(": ") if found else ""
