"""The admin: a read-only list of the entries that stays quick when there are very many."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import Count, Q, QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.text import Truncator, format_lazy
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from pluginhost import ConfigurationError
from pluginhost.builtin.journal.models import Entry, EntryQuerySet
from pluginhost.builtin.journal.plugin import Journal
from pluginhost.db import first_keys
from pluginhost.registry import load_registry

if TYPE_CHECKING:
    from django.db import models
    from django.http import HttpRequest

    ModelAdmin = admin.ModelAdmin[Entry]
    EntryPaginator = Paginator[Entry]
else:
    ModelAdmin = admin.ModelAdmin
    EntryPaginator = Paginator

#: Entries that the list goes through, at most: to count them all would be to read them all.
COUNTED = 10_000
#: Names that the filter offers: the most frequent ones among so many events.
NAMES, NAMES_AMONG = 50, 2_000


class BoundedPaginator(EntryPaginator):
    """Ends after ``COUNTED`` entries."""

    @cached_property
    def count(self) -> int:
        entries: QuerySet[Entry] = self.object_list  # type: ignore[assignment]
        return entries.order_by()[:COUNTED].count()


class ListedQuerySet(EntryQuerySet):
    """What the list is made of. Finds the days for its date hierarchy in the index, one after the other."""

    def datetimes(self, field_name: str, kind: str, *_: Any, **__: Any) -> list[dt.date]:  # type: ignore[override]
        """The first days of the years or months, or the days, that have entries."""
        days: list[dt.date] = []
        times = self.order_by(field_name).values_list(field_name, flat=True)
        time = times.first()
        while time is not None:
            aware = timezone.is_aware(time)
            day = (timezone.localtime(time) if aware else time).date()
            days.append(day if kind == "day" else day.replace(day=1, month=1 if kind == "year" else day.month))
            begin = dt.datetime.combine(_next(days[-1], kind), dt.time())
            time = times.filter(**{f"{field_name}__gte": timezone.make_aware(begin) if aware else begin}).first()
        return days


def _next(day: dt.date, kind: str) -> dt.date:
    """After the first day of a year or month, that of the next one; else the next day."""
    days = {"year": 366, "month": 31, "day": 1}[kind]
    later = day + dt.timedelta(days=days)
    return later if kind == "day" else later.replace(day=1)


class NameFilter(admin.SimpleListFilter):
    """The frequent names of late. All names there are could only be found by reading all entries."""

    title = _("event")
    parameter_name = "name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        entries = model_admin.get_queryset(request).order_by()
        late = entries.filter(type=Entry.Type.TRACK).order_by("-timestamp")
        frequent = (
            entries.filter(pk__in=first_keys(late, NAMES_AMONG))
            .values("name")
            .annotate(n=Count("pk"))
            .order_by("-n", "name")[:NAMES]
        )
        chosen = self.value()
        names = {row["name"] for row in frequent} | ({chosen} if chosen else set())
        return [(name, name) for name in sorted(names)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:  # noqa: ARG002
        return queryset.filter(name=self.value()) if self.value() else queryset


class EntryAdmin(ModelAdmin):
    """Entries are looked at and, with the permission, deleted; nobody writes them but the plugin."""

    list_display = ["timestamp", "type", "name", "user_id", "anonymous_id", "path", "properties_in_short"]
    list_filter = ["type", NameFilter]
    sortable_by = ["timestamp", "type", "name", "user_id", "anonymous_id"]
    date_hierarchy = "timestamp"
    search_fields = ["user_id", "anonymous_id", "name", "message_id"]
    search_help_text = format_lazy(
        _(
            "A user id, an anonymous id, a message id or the name of an event, as a whole. "
            "The list ends after {number} entries; filter it to see others."
        ),
        number=COUNTED,
    )
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    fieldsets = [
        (None, {"fields": ["timestamp", "type", "name", "value", "subject", "properties_as_json"]}),
        (_("Who"), {"fields": ["user", "joined", "anonymous_id", "previous_id"]}),
        (_("Where"), {"fields": ["url", "path", "route", "method", "referrer", "ip", "user_agent", "language"]}),
        (_("Record"), {"fields": ["message_id", "created"]}),
    ]
    readonly_fields = ["subject", "properties_as_json", "user"]

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, obj: Entry | None = None) -> bool:  # noqa: ARG002
        return False

    def get_queryset(self, request: HttpRequest) -> ListedQuerySet:
        return ListedQuerySet(Entry).order_by(*self.get_ordering(request))

    def get_search_results(
        self,
        request: HttpRequest,  # noqa: ARG002
        queryset: QuerySet[Entry],
        search_term: str,
    ) -> tuple[QuerySet[Entry], bool]:
        """The entries with exactly this id or name: an index finds them, which finds no part of a text."""
        term = search_term.strip()
        if not term:
            return queryset, False
        found = Q(user_id=term) | Q(anonymous_id=term) | Q(name=term)
        with suppress(ValueError):
            found |= Q(message_id=uuid.UUID(term))
        return queryset.filter(found), False

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[Any]]:
        """Refuse to delete all entries at once if they are more than the list has said, and than memory may hold."""
        if isinstance(objs, QuerySet) and objs.order_by()[: COUNTED + 1].count() > COUNTED:
            text = gettext("There are more than %(number)s such entries. Filter them first.") % {"number": COUNTED}
            return [], {}, set(), [text]
        return super().get_deleted_objects(objs, request)

    @admin.display(description=_("properties"))
    def properties_in_short(self, entry: Entry) -> str:
        return Truncator(_json(entry.properties)).chars(80) if entry.properties else ""

    @admin.display(description=_("properties"))
    def properties_as_json(self, entry: Entry) -> str:
        return format_html("<pre>{}</pre>", _json(entry.properties, indent=2))

    @admin.display(description=_("user"))
    def user(self, entry: Entry) -> str:
        return self._link(get_user_model(), entry.user_id, entry.user_id)

    @admin.display(description=_("subject"))
    def subject(self, entry: Entry) -> str:
        text = f"{entry.subject_model} {entry.subject_pk}".strip()
        try:
            model = apps.get_model(entry.subject_model)
        except (LookupError, ValueError):
            return text
        return self._link(model, entry.subject_pk, text)

    def _link(self, model: type[models.Model], pk: str, text: str) -> str:
        """A link to the object's page in this admin, if it has one and the object is there; else the text."""
        if not self.admin_site.is_registered(model):
            return text
        try:
            found = model._base_manager.filter(pk=pk).values_list("pk", flat=True).first()
        except (ValueError, TypeError, ValidationError):  # no key of this model
            return text
        if str(found) != pk:
            return text
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}_change"
        url = reverse(name, args=[quote(pk)], current_app=self.admin_site.name)
        return format_html('<a href="{}">{}</a>', url, text)


def _json(value: Any, **how: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, **how)


def show() -> None:
    """Register the entries in the admin, unless an alias has ADMIN off or the project registered them itself."""
    if _wanted() and not admin.site.is_registered(Entry):
        admin.site.register(Entry, EntryAdmin)


def _wanted() -> bool:
    try:
        plugins = load_registry().plugins.values()
    except ConfigurationError:
        return True  # the system checks report it
    return all(loaded.plugin.options.ADMIN for loaded in plugins if isinstance(loaded.plugin, Journal))
