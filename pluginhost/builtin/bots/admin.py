"""The admin of the site's own robots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin
from django.db.models import CharField, F, Q, Value
from django.db.models.lookups import IContains, IExact, IStartsWith
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from pluginhost.builtin.bots.models import Robot

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest

    RobotModelAdmin = admin.ModelAdmin[Robot]
else:
    RobotModelAdmin = admin.ModelAdmin


def _matching(user_agent: str) -> Q:
    """The rows that match this user agent."""
    text = Value(user_agent, CharField())
    return (
        Q(IContains(text, F("pattern")), kind=Robot.Kind.CONTAINS)
        | Q(IStartsWith(text, F("pattern")), kind=Robot.Kind.STARTS)
        | Q(IExact(text, F("pattern")), kind=Robot.Kind.IS)
    )


@admin.register(Robot)
class RobotAdmin(RobotModelAdmin):
    list_display = ["pattern", "kind", "enabled", "note", "created"]
    list_filter = ["enabled", "kind", "created"]
    search_fields = ["pattern", "note"]
    search_help_text = _("A whole user agent finds the robots that it matches.")
    fields = ["kind", "pattern", "note", "enabled"]
    actions = ["enable", "disable"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Robot], search_term: str
    ) -> tuple[QuerySet[Robot], bool]:
        """Search for words, and try a user agent against the list."""
        found, may_have_duplicates = super().get_search_results(request, queryset, search_term)
        if term := search_term.strip():
            found |= queryset.filter(_matching(term))
        return found, may_have_duplicates

    @admin.action(description=_("Enable selected robots"), permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Robot]) -> None:
        self._switch(request, queryset, enabled=True)

    @admin.action(description=_("Disable selected robots"), permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Robot]) -> None:
        self._switch(request, queryset, enabled=False)

    def _switch(self, request: HttpRequest, queryset: QuerySet[Robot], *, enabled: bool) -> None:
        changed = queryset.update(enabled=enabled)
        self.message_user(request, ngettext("%d robot changed.", "%d robots changed.", changed) % changed)
