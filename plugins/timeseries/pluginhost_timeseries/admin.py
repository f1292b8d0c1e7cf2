"""The admin: read-only lists of what was counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin

from pluginhost import ConfigurationError
from pluginhost.registry import load_registry
from pluginhost_timeseries.counters import counter_fields
from pluginhost_timeseries.models import EventCount, TrackableData, TrackableTimeSeriesData
from pluginhost_timeseries.plugin import TimeSeries
from pluginhost_timeseries.sites import site

if TYPE_CHECKING:
    from django.db import models
    from django.db.models import QuerySet
    from django.http import HttpRequest

    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin


class ReadOnlyAdmin(ModelAdmin):
    """Counts are looked at, not edited."""

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:  # noqa: ARG002
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:  # noqa: ARG002
        return False


class TrackableDataAdmin(ReadOnlyAdmin):
    """How a data model is shown that was registered without an admin class."""

    list_filter = [("parent_content_type", admin.RelatedOnlyFieldListFilter)]
    search_fields = ["=parent_object_id"]
    ordering = ["-pk"]

    def __init__(self, model: type[TrackableData], admin_site: admin.AdminSite) -> None:
        super().__init__(model, admin_site)
        by_day = "collected_during" in model.counted_by
        self.list_display = ["parent", *(["collected_during"] if by_day else []), *counter_fields(model)]

    def get_queryset(self, request: HttpRequest) -> QuerySet[TrackableData]:
        return super().get_queryset(request).prefetch_related("parent")


class TrackableTimeSeriesDataAdmin(TrackableDataAdmin):
    """The same, by day."""

    date_hierarchy = "collected_during"
    ordering = ["-collected_during", "-pk"]


class EventCountAdmin(ReadOnlyAdmin):
    list_display = ["day", "name", "subject_type", "subject_id", "count", "total"]
    list_filter = ["name", "subject_type"]
    search_fields = ["=subject_id"]
    date_hierarchy = "day"


_shown: set[type[models.Model]] = set()


def show(model: type[models.Model], admin_class: type[ModelAdmin] | None) -> None:
    """Register a model in the admin, unless an alias has ADMIN off or the project registered it itself."""
    if _wanted() and not admin.site.is_registered(model):
        plain = TrackableTimeSeriesDataAdmin if issubclass(model, TrackableTimeSeriesData) else TrackableDataAdmin
        admin.site.register(model, admin_class or plain)
        _shown.add(model)


def hide(model: type[models.Model]) -> None:
    """Take a model out of the admin, if ``show`` put it there."""
    if model in _shown:
        _shown.discard(model)
        admin.site.unregister(model)


def show_all() -> None:
    """Register the counts of undeclared events, and every data model."""
    show(EventCount, EventCountAdmin)
    for model, admin_class in site.admin_classes().items():
        show(model, admin_class)


def _wanted() -> bool:
    try:
        plugins = load_registry().plugins.values()
    except ConfigurationError:
        return True  # the system checks report it
    return all(loaded.plugin.options.ADMIN for loaded in plugins if isinstance(loaded.plugin, TimeSeries))
