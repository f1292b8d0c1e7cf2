"""The lanes in the admin: an overview, a page for each, and what may be done to them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME, ActionForm
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.utils.text import format_lazy
from django.utils.timesince import timesince
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from pluginhost.admin import operations
from pluginhost.admin.base import OutboxAdmin, may
from pluginhost.admin.conditions import conditions, moment
from pluginhost.api import host
from pluginhost.models import DeadLetter, Delivery, Lane
from pluginhost.operations import letters, pausing

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Sequence

    from django.db import models
    from django.http import HttpRequest
    from django.utils.functional import _StrPromise

    from pluginhost.operations.pausing import LaneView


class Operation(NamedTuple):
    """What may be done to lanes."""

    description: _StrPromise
    """In the list of actions."""
    title: _StrPromise
    """Of the page that asks, and on the button of a lane's own page."""
    permission: tuple[str, type[models.Model]]
    act: Callable[[HttpRequest, letters.Selection, dict[str, Any]], None]
    """Does it to these lanes, or to what is selected in them, with what the form has asked."""
    is_for: Callable[[LaneView], object]
    """Whether it would change anything."""
    form: type[forms.Form] = forms.Form
    asks: bool = True
    """Whether a page asks first."""
    concerns: str = ""
    """The state of the deliveries that it is about, if it is about any."""
    yes: Callable[[int], str] | None = None
    """On the button, with the number of events. None: the title."""
    warning: _StrPromise | None = None
    """What is lost."""

    def selection(self, lanes: Sequence[str], died_before: dt.datetime | None) -> letters.Selection:
        return letters.Selection(
            lanes=tuple(lanes), state=self.concerns, died_before=died_before if self.concerns == DEAD else None
        )


DEAD, WAITING = Delivery.State.DEAD.value, Delivery.State.WAITING.value
OPERATIONS = {
    "pause": Operation(
        _("Pause selected lanes"),
        _("Pause"),
        permission=("change", Lane),
        act=lambda request, which, answers: operations.pause(request, list(which.lanes), answers["reason"]),
        is_for=lambda lane: lane.paused_at is None,
        form=operations.PauseForm,
    ),
    "resume": Operation(
        _("Resume selected lanes"),
        _("Resume"),
        permission=("change", Lane),
        act=lambda request, which, _: operations.resume(request, list(which.lanes)),
        is_for=lambda lane: lane.paused_at is not None,
        asks=False,
    ),
    "replay": Operation(
        _("Replay the dead letters of selected lanes"),
        _("Replay dead letters"),
        permission=("change", DeadLetter),
        act=lambda request, which, answers: operations.replay(request, which, answers["rate"]),
        is_for=lambda lane: lane.dead,
        form=operations.ReplayForm,
        concerns=DEAD,
        yes=operations.replay_how_many,
    ),
    "discard_dead": Operation(
        _("Discard the dead letters of selected lanes"),
        _("Discard dead letters"),
        permission=("delete", DeadLetter),
        act=lambda request, which, _: operations.discard(request, which),
        is_for=lambda lane: lane.dead,
        concerns=DEAD,
        yes=operations.discard_how_many,
        warning=operations.LOST,
    ),
    "discard_waiting": Operation(
        _("Discard what waits in selected lanes"),
        _("Discard what waits"),
        permission=("delete", Lane),
        act=lambda request, which, _: operations.discard(request, which),
        is_for=lambda lane: lane.waiting - lane.in_hand,
        concerns=WAITING,
        yes=operations.discard_how_many,
        warning=format_lazy(
            "{} {}", operations.LOST, _("What a worker has in hand stays, and so does what is accepted later.")
        ),
    ),
}


def _age(time: dt.datetime | None) -> str:
    """How long ago, in words."""
    return timesince(time) if time else ""


def _field(label: _StrPromise, show: Callable[[LaneView], Any]) -> Any:
    """A field of a lane's page."""

    @admin.display(description=label)
    def field(_: LaneAdmin, lane: Lane) -> Any:
        return show(vars(lane)["view"])

    return field


def _state(lane: LaneView) -> str:
    return render_to_string("admin/pluginhost/conditions.html", {"conditions": conditions(lane), "in_full": True})


class LaneAdmin(OutboxAdmin):
    """Lanes are those of the accounts and of the settings; few of them have a row of their own."""

    fieldsets = [
        (None, {"fields": ["state"]}),
        (_("Now"), {"fields": ["waiting", "oldest_waiting", "next_due", "in_hand", "dead"]}),
        (_("Account"), {"fields": ["accepted", "delivered", "skipped", "discarded", "balances"]}),
    ]
    change_form_template = "admin/pluginhost/lane/change_form.html"

    state = _field(_("state"), _state)
    waiting = _field(_("waiting"), lambda lane: lane.waiting)
    oldest_waiting = _field(_("oldest waiting"), lambda lane: _age(lane.oldest_waiting))
    next_due = _field(_("next due"), lambda lane: lane.next_due and moment(lane.next_due))
    in_hand = _field(_("in hand"), lambda lane: lane.in_hand)
    accepted = _field(_("accepted"), lambda lane: lane.accepted)
    delivered = _field(_("delivered"), lambda lane: lane.delivered)
    skipped = _field(_("skipped"), lambda lane: lane.skipped)
    dead = _field(_("dead"), lambda lane: lane.dead)
    discarded = _field(_("discarded"), lambda lane: lane.discarded)
    balances = _field(_("balances"), lambda lane: gettext("yes") if lane.balances else gettext("no"))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Lane | None:  # noqa: ARG002
        """The lane of this name, whether or not it has a row."""
        views = {view.lane: view for view in pausing.overview(host.database())}
        if object_id not in views:
            return None
        lane = Lane(name=object_id)
        vars(lane)["view"] = views[object_id]
        return lane

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = super().change_view(request, object_id, form_url, extra_context)
        context = getattr(response, "context_data", None) or {}
        if (lane := context.get("original")) is not None:
            view = vars(lane)["view"]
            context["operations"] = [
                (name, operation)
                for name, operation in OPERATIONS.items()
                if may(request, *operation.permission) and operation.is_for(view)
            ]
            context["overview_url"] = self.address(Lane, "changelist")
            context["letters_url"] = self._letters_url(request, view)
        return response

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        lanes = pausing.overview(host.database())
        if request.method == "POST":
            known = [lane.lane for lane in lanes]
            return self._operate(request, known) or HttpResponseRedirect(self.address(Lane, "changelist"))
        rows = [
            {
                "lane": lane,
                "conditions": conditions(lane),
                "url": self.address(Lane, "change", lane.lane),
                "letters_url": self._letters_url(request, lane),
                "age": _age(lane.oldest_waiting),
            }
            for lane in lanes
        ]
        context = {
            "title": gettext("Lanes"),
            "rows": rows,
            "module_name": str(self.opts.verbose_name_plural),
            # What the base template and that of the actions take from a change list.
            "cl": SimpleNamespace(opts=self.opts, result_list=lanes, result_count=len(lanes)),
            "action_form": self._action_form(request),
            "actions_on_top": True,
            "actions_selection_counter": True,
            "selection_note": gettext("0 of %(cnt)s selected") % {"cnt": len(lanes)},
            **(extra_context or {}),
        }
        return self.page(request, "lane/change_list.html", **context)

    def _action_form(self, request: HttpRequest) -> ActionForm | None:
        choices = [
            (name, operation.description)
            for name, operation in OPERATIONS.items()
            if may(request, *operation.permission)
        ]
        if not choices:
            return None
        form = ActionForm(auto_id=False)
        form.fields["action"].choices = [*self.get_action_choices(request)[:1], *choices]  # type: ignore[attr-defined]
        return form

    def _letters_url(self, request: HttpRequest, lane: LaneView) -> str:
        """Where the lane's dead letters are listed, if there are any and the user may see them."""
        if not lane.dead or not self.shows(request, DeadLetter):
            return ""
        return f"{self.address(DeadLetter, 'changelist')}?lane={lane.lane}"

    def _counts(
        self, operation: Operation, lanes: Sequence[str], died_before: dt.datetime | None
    ) -> dict[str, int] | None:
        """How many events of which lane it is about; None if it is about none."""
        if not operation.concerns:
            return None
        if operation.concerns == DEAD and died_before is None:
            return {}
        return letters.count(operation.selection(lanes, died_before), host.database())

    def _operate(self, request: HttpRequest, known: Sequence[str]) -> HttpResponse | None:
        """Do what was asked for, or ask whether it is meant. None: back to the overview."""
        name = request.POST.get("action", "")
        operation = OPERATIONS.get(name)
        if operation is None:
            messages.warning(request, gettext("No action selected."))
            return None
        if not may(request, *operation.permission):
            raise PermissionDenied
        selected = request.POST.getlist(ACTION_CHECKBOX_NAME)
        lanes = [lane for lane in known if lane in selected]
        if not lanes:
            messages.warning(request, gettext("No lane is selected, or there is none of that name."))
            return None
        died_before = operations.bound(request) if operation.concerns == DEAD else None
        counts = self._counts(operation, lanes, died_before)
        if counts is not None:
            if not counts:
                messages.warning(request, gettext("There are no such events."))
                return None
            lanes = list(counts)
        form = operation.form(request.POST if "post" in request.POST or not operation.asks else None)
        if form.is_valid():
            operation.act(request, operation.selection(lanes, died_before), form.cleaned_data)
            return None
        return operations.confirm(
            self,
            request,
            action=name,
            title=operation.title,
            form=form,
            lanes=lanes,
            counts=counts,
            yes=operation.yes(sum(counts.values())) if operation.yes and counts else str(operation.title),
            back=self.address(Lane, "changelist"),
            died_before=died_before,
            warning=operation.warning,
        )
