"""System checks of data models and of the plugin's aliases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.core import checks
from django.db import connections, models, router

from pluginhost.db import counts_new_rows
from pluginhost.registry import load_registry
from pluginhost_timeseries.counters import counter_fields
from pluginhost_timeseries.plugin import TimeSeries
from pluginhost_timeseries.sites import site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pluginhost_timeseries.models import TrackableData


def check_data_model(model: type[TrackableData]) -> list[checks.CheckMessage]:
    """What would keep events from being counted in this data model."""
    return [*_constraint(model), *_events(model), *_fields(model)]


def _constraint(model: type[TrackableData]) -> Iterator[checks.CheckMessage]:
    concrete = model._meta.concrete_model or model
    if model.counted_by not in [constraint.fields for constraint in concrete._meta.total_unique_constraints]:
        yield checks.Error(
            f"{model._meta.label} has no unique constraint on {', '.join(model.counted_by)}.",
            hint="Its Meta must inherit from the Meta of the data model that it subclasses.",
            obj=model,
            id="pluginhost_timeseries.E004",
        )


def _events(model: type[TrackableData]) -> Iterator[checks.CheckMessage]:
    if not isinstance(model.events, Mapping):
        yield checks.Error(
            f"{model._meta.label}.events is not a dict.",
            hint="It maps names of events to names of counters; a field must be called otherwise.",
            obj=model,
            id="pluginhost_timeseries.E005",
        )
        return
    for name, field in model.events.items():
        if field not in counter_fields(model):
            yield checks.Error(
                f"{model._meta.label}.events[{name!r}] names {field!r}, which is no counter.",
                hint=f"Its counters are: {', '.join(counter_fields(model)) or 'none'}.",
                obj=model,
                id="pluginhost_timeseries.E005",
            )


def _fields(model: type[TrackableData]) -> Iterator[checks.CheckMessage]:
    counters = counter_fields(model)
    for field in model._meta.concrete_fields:
        if field.name in counters:
            if field.null:
                yield checks.Error(
                    f"The counter {field} may be NULL, and nothing can be added to NULL.",
                    hint="Remove null=True, and set default=0.",
                    obj=field,
                    id="pluginhost_timeseries.E006",
                )
        elif not (field.name in model.counted_by or field.primary_key or _has_value(field)):
            yield checks.Error(
                f"{field} has no default, so no event can make a row.",
                hint="Set default=, db_default= or null=True.",
                obj=field,
                id="pluginhost_timeseries.E007",
            )


def _has_value(field: models.Field[Any, Any]) -> bool:
    """Whether ``pluginhost.db.add_up`` can write this field without being told its value."""
    return field.has_default() or field.has_db_default() or field.generated or field.null


def check_alias(plugin: TimeSeries) -> list[checks.CheckMessage]:
    """What would keep this alias from counting, or make it count in the wrong place."""
    if plugin.database not in connections:
        return [
            checks.Error(
                f"plugin {plugin.alias}: DATABASE is {plugin.database!r}, which is not in DATABASES.",
                hint=f"There are: {', '.join(connections)}.",
                id="pluginhost_timeseries.E001",
            )
        ]
    return [*_engine(plugin), *_other_aliases(plugin), *_routes(plugin)]


def _engine(plugin: TimeSeries) -> Iterator[checks.CheckMessage]:
    if not counts_new_rows(connections[plugin.database]):
        yield checks.Error(
            f"plugin {plugin.alias}: the database {plugin.database!r} can't say which rows of an INSERT are new.",
            hint="Count in PostgreSQL, MariaDB, MySQL, or SQLite 3.35 or newer.",
            id="pluginhost_timeseries.E002",
        )


def _other_aliases(plugin: TimeSeries) -> Iterator[checks.CheckMessage]:
    for alias, loaded in load_registry().plugins.items():
        other = loaded.plugin
        if isinstance(other, TimeSeries) and alias < plugin.alias and other.database == plugin.database:
            yield checks.Error(
                f"plugins {alias} and {plugin.alias} both count in the database {plugin.database!r}.",
                hint="Each event would count twice. Remove one of them, or set another DATABASE.",
                id="pluginhost_timeseries.E003",
            )


def _routes(plugin: TimeSeries) -> Iterator[checks.CheckMessage]:
    read: list[type[models.Model]] = list(site.admin_classes())
    for model in read:
        database = router.db_for_read(model)
        if database != plugin.database:
            yield checks.Warning(
                f"{model._meta.label} is read from the database {database!r}, but plugin {plugin.alias}"
                f" counts in {plugin.database!r}.",
                hint="Set DATABASE_ROUTERS so that both are the same.",
                id="pluginhost_timeseries.W001",
            )
