"""Dead letters in the admin: found, read, replayed, discarded."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.forms import Form
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from pluginhost.admin import operations, reasons
from pluginhost.admin.base import OutboxAdmin, may
from pluginhost.admin.conditions import moment
from pluginhost.api import host
from pluginhost.delivery.envelopes import unpack
from pluginhost.models import Chunk, DeadLetter, Lane
from pluginhost.operations import letters

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.utils.functional import _StrPromise

    from pluginhost.events import Event

#: Characters of an unreadable payload that are shown.
SHOWN = 10_000
#: Characters of a reason in the list.
REASON_IN_SHORT = 120
#: More letters than this are not replayed without a question.
ASKS_ABOVE = 100


class LaneFilter(admin.SimpleListFilter):
    """The lanes that have dead letters."""

    title = _("lane")
    parameter_name = "lane"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        found = model_admin.get_queryset(request).order_by("lane").values_list("lane", flat=True).distinct()
        names = {*found, *([chosen] if (chosen := self.value()) else [])}
        return [(name, name) for name in sorted(names)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:  # noqa: ARG002
        chosen = self.value()
        if not chosen:
            return queryset
        return queryset.none() if "\0" in chosen else queryset.filter(lane=chosen)


class KindFilter(admin.SimpleListFilter):
    """Why they were given up."""

    title = _("reason")
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(kind.name, str(kind.title)) for kind in (*reasons.KINDS, reasons.OTHER)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:  # noqa: ARG002
        return queryset.filter(reasons.condition(self.value() or ""))


class AcceptedFilter(admin.DateFieldListFilter):
    """When they were accepted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = _("date of acceptance")


class Content:
    """What a letter holds."""

    def __init__(self, letter: DeadLetter) -> None:
        payload = letter.payload
        if letter.chunk_id:
            chunks = Chunk.objects.using(letter._state.db).filter(pk=letter.chunk_id)
            payload = chunks.values_list("payload", flat=True).first()
        self.raw = bytes(payload or b"")
        self.event: Event | None = None
        self.problem = ""
        try:
            stored = unpack(letter.version, self.raw)
        except ValueError as error:
            self.problem = str(error)
            return
        if len(stored) == 1:
            self.event, self.problem = stored[0].event, stored[0].problem

    @property
    def text(self) -> str:
        """The bytes as text: JSON with indents, if it is JSON."""
        text = self.raw.decode("utf-8", "backslashreplace")
        if len(text) <= SHOWN:
            with suppress(ValueError, RecursionError):
                return _pretty(json.loads(text))
        return Truncator(text).chars(SHOWN)


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, indent=2)


def _block(text: str) -> str:
    return format_html('<pre class="pluginhost-data">{}</pre>', text)


def content(letter: DeadLetter) -> Content:
    """Read once for all fields of a page."""
    kept = vars(letter)
    if "content" not in kept:
        kept["content"] = Content(letter)
    found: Content = kept["content"]
    return found


#: Groups of fields of an event: title, {name: (label, value)}. What an event does not have is left out.
Fields = dict[str, "tuple[_StrPromise, Callable[[Event], Any]]"]
EVENT: tuple[tuple[_StrPromise, Fields], ...] = (
    (
        _("What happened"),
        {
            "event_type": (_("type"), lambda event: event.type),
            "event_full_name": (_("name"), lambda event: event.name),
            "event_timestamp": (_("when"), lambda event: moment(event.timestamp)),
            "event_value": (_("value"), lambda event: None if event.value is None else str(event.value)),
            "event_subject": (
                _("subject"),
                lambda event: event.subject and f"{event.subject.model} {event.subject.pk}",
            ),
            "event_properties": (_("properties"), lambda event: event.properties and _block(_pretty(event.properties))),
        },
    ),
    (
        _("Who"),
        {
            "event_user_id": (_("user id"), lambda event: event.user_id),
            "event_anonymous_id": (_("anonymous id"), lambda event: event.anonymous_id),
            "event_previous_id": (_("previous id"), lambda event: event.previous_id),
            "event_visitor_ids": (
                _("ids of providers"),
                lambda event: event.visitor_ids and _block(_pretty(event.visitor_ids)),
            ),
        },
    ),
    (
        _("Where"),
        {
            "event_url": (_("URL"), lambda event: event.context.url),
            "event_path": (_("path"), lambda event: event.context.path),
            "event_route": (_("route"), lambda event: event.context.route),
            "event_method": (_("method"), lambda event: event.context.method),
            "event_referrer": (_("referrer"), lambda event: event.context.referrer),
            "event_ip": (_("address"), lambda event: event.context.ip),
            "event_user_agent": (_("user agent"), lambda event: event.context.user_agent),
            "event_language": (_("language"), lambda event: event.context.language),
        },
    ),
    (
        _("Record"),
        {
            "event_message_id": (_("message id"), lambda event: event.message_id),
            "event_plugins": (_("for plugins"), lambda event: event.plugins and _block(_pretty(event.plugins))),
        },
    ),
)


def _field(label: _StrPromise, read: Callable[[Event], Any]) -> Any:
    @admin.display(description=label)
    def field(_: DeadLetterAdmin, letter: DeadLetter) -> Any:
        event = content(letter).event
        return read(event) if event else None

    return field


class DeadLetterAdmin(OutboxAdmin):
    """Dead letters are looked at, replayed and discarded."""

    list_display = ["event", "lane", "why", "attempts", "accepted"]
    list_filter = [LaneFilter, KindFilter, ("created", AcceptedFilter)]
    search_fields = ["message_id", "event_name", "reason"]
    search_help_text = _("A message id, or words of the name and the reason.")
    ordering = ["-pk"]
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = ["replay", "discard"]
    change_form_template = "admin/pluginhost/deadletter/change_form.html"

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return may(request, "change", DeadLetter)

    def has_discard_permission(self, request: HttpRequest) -> bool:
        return may(request, "delete", DeadLetter)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("payload")

    def get_fieldsets(self, request: HttpRequest, obj: DeadLetter | None = None) -> list[tuple[Any, Any]]:  # noqa: ARG002
        """The fields of the event that it has; what is stored, if it is no single event."""
        about = ["reason_in_words", "hint", "reason", "lane_link", "attempts", "accepted", "died"]
        found: list[tuple[Any, Any]] = [(None, {"fields": about})]
        if obj is None:
            return found
        event = content(obj).event
        if event is None:
            return [*found, (_("What is stored"), {"fields": ["n", "version", "problem", "stored"]})]
        for title, fields in EVENT:
            names = [name for name, (_label, read) in fields.items() if read(event) not in (None, "", {})]
            if names:
                found.append((title, {"fields": names}))
        return found

    @admin.display(description=_("event"), ordering="event_name")
    def event(self, letter: DeadLetter) -> str:
        return str(letter)

    @admin.display(description=_("reason"), ordering="reason")
    def why(self, letter: DeadLetter) -> str:
        short = Truncator(letter.reason).chars(REASON_IN_SHORT)
        return format_html('{}<br><span class="quiet">{}</span>', reasons.in_words(letter), short)

    @admin.display(description=_("accepted"), ordering="created")
    def accepted(self, letter: DeadLetter) -> str:
        return moment(letter.created)

    @admin.display(description=_("died"))
    def died(self, letter: DeadLetter) -> str:
        return moment(letter.due_at)

    @admin.display(description=_("why"))
    def reason_in_words(self, letter: DeadLetter) -> str:
        return reasons.in_words(letter)

    @admin.display(description=_("what to do"))
    def hint(self, letter: DeadLetter) -> str:
        return str(reasons.kind_of(letter).hint)

    @admin.display(description=_("lane"))
    def lane_link(self, letter: DeadLetter) -> str:
        if not self.admin_site.is_registered(Lane):
            return letter.lane
        return format_html('<a href="{}">{}</a>', self.address(Lane, "change", letter.lane), letter.lane)

    @admin.display(description=_("problem"))
    def problem(self, letter: DeadLetter) -> str:
        return content(letter).problem

    @admin.display(description=_("stored"))
    def stored(self, letter: DeadLetter) -> str:
        return _block(content(letter).text)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        more = {
            "may_replay": self.has_replay_permission(request),
            "may_discard": self.has_discard_permission(request),
            "list_url": self.address(DeadLetter, "changelist"),
        }
        return super().change_view(request, object_id, form_url, {**more, **(extra_context or {})})

    @admin.action(description=_("Replay selected dead letters"), permissions=["replay"])
    def replay(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse | None:
        selection = self._selection(request, queryset)
        if selection is None:
            return None
        few = len(selection.ids) <= ASKS_ABOVE
        form = operations.ReplayForm(request.POST if few or "post" in request.POST else None)
        if not form.is_valid():
            return self._confirm(
                request, selection, form, "replay", _("Replay dead letters"), operations.replay_how_many
            )
        operations.replay(request, selection, form.cleaned_data["rate"])
        return None

    @admin.action(description=_("Discard selected dead letters"), permissions=["discard"])
    def discard(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse | None:
        selection = self._selection(request, queryset)
        if selection is None:
            return None
        if "post" not in request.POST:
            title = _("Discard dead letters")
            yes = operations.discard_how_many
            return self._confirm(request, selection, Form(), "discard", title, yes, warning=operations.LOST)
        operations.discard(request, selection)
        return None

    def _selection(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> letters.Selection | None:
        """These letters: their ids alone, for there may be very many. None if somebody was faster."""
        died_before = operations.bound(request)
        shown = queryset.none() if died_before is None else queryset.filter(due_at__lt=died_before)
        ids = tuple(shown.order_by().values_list("pk", flat=True))
        if ids:
            return letters.Selection(ids=ids, died_before=died_before)
        messages.warning(request, gettext("These dead letters have been replayed or discarded meanwhile."))
        return None  # never a selection without ids: that one selects everything

    def _confirm(
        self,
        request: HttpRequest,
        selection: letters.Selection,
        form: Form,
        action: str,
        title: _StrPromise,
        yes: Callable[[int], str],
        warning: _StrPromise | None = None,
    ) -> HttpResponse:
        counts = letters.count(selection, host.database())
        return operations.confirm(
            self,
            request,
            action=action,
            title=title,
            form=form,
            lanes=counts,
            counts=counts,
            yes=yes(sum(counts.values())),
            back=request.get_full_path(),
            died_before=selection.died_before,
            warning=warning,
        )


for _title, _fields in EVENT:
    for _name, (_label, _read) in _fields.items():
        setattr(DeadLetterAdmin, _name, _field(_label, _read))
