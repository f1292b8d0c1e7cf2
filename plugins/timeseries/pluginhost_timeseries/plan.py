"""From events to what they add: which counters an event goes to, and how much. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from django.apps import apps
from django.core.exceptions import ValidationError

from pluginhost import PartialFailure, PermanentError, SkipEvent
from pluginhost_timeseries.counters import amount, counter_fields
from pluginhost_timeseries.models import EventCount, TrackableData
from pluginhost_timeseries.sites import site

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable

    from django.db import models

    from pluginhost import Event, Subject
    from pluginhost_timeseries.counters import Amount, Counter


class Share(NamedTuple):
    """What one event adds to one row."""

    model: type[EventCount | TrackableData]
    key: tuple[Any, ...]
    """The values of the fields in ``model.counted_by``."""
    amounts: dict[str, Amount]
    """Name of a field -> what is added to it."""


@dataclass
class Plan:
    """The shares of each event that can be counted, and why the others cannot."""

    shares: dict[str, list[Share]] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)

    def raise_failures(self) -> None:
        """Raise ``PartialFailure`` if an event failed or is not for this plugin."""
        if self.failures:
            raise PartialFailure(self.failures)


class Planner:
    """Makes the plan of one batch.

    ``zone`` decides which day an event belongs to, ``generic`` whether events
    that no data model declares are counted. ``content_type_id`` gives the key of
    a parent model's content type.
    """

    def __init__(self, zone: dt.tzinfo, *, generic: bool, content_type_id: Callable[[type[models.Model]], int]) -> None:
        self.zone = zone
        self.generic = generic
        self.content_type_id = content_type_id
        self._total: Counter = EventCount._meta.get_field("total")
        self._planned: dict[tuple[Any, ...], list[Share]] = {}
        self._declared: dict[tuple[type[models.Model], str], list[tuple[type[TrackableData], Counter]]] = {}

    def plan(self, events: Iterable[Event]) -> Plan:
        """The plan of these events. One that appears twice is planned once."""
        plan = Plan()
        for event in events:
            try:
                plan.shares[event.message_id] = self.shares(event)
            except (PermanentError, SkipEvent) as error:
                plan.failures[event.message_id] = error
        return plan

    def shares(self, event: Event) -> list[Share]:
        """What this event adds. Raises ``PermanentError``, and ``SkipEvent`` if nothing counts it.

        Events that add the same to the same rows have one list in common.
        """
        day = self._day(event)
        known = (event.subject, event.name, event.value, day)
        shares = self._planned.get(known)
        if shares is None:
            shares = self._planned[known] = self._plan(event, day)
        return shares

    def _plan(self, event: Event, day: dt.date) -> list[Share]:
        parent = _parent_model(event.subject) if event.subject else None
        key = _parent_key(parent, event.subject.pk) if parent and event.subject else ""
        if parent and (declared := self._counters(parent, event.name)):
            of = {
                "parent_content_type": self.content_type_id(parent),
                "parent_object_id": key,
                "collected_during": day,
            }
            return [_declared_share(model, field, of, event.value) for model, field in declared]
        if not self.generic:
            raise SkipEvent(f"no data model counts {event.name!r}")
        total = amount(self._total, event.value or 0)
        label = parent._meta.label if parent else ""
        return [Share(EventCount, (day, event.name, label, key), {"count": 1, "total": total})]

    def _day(self, event: Event) -> dt.date:
        try:
            return event.timestamp.astimezone(self.zone).date()
        except OverflowError:
            raise PermanentError(f"{event.timestamp} is no day of the calendar in {self.zone}") from None

    def _counters(self, parent: type[models.Model], name: str) -> list[tuple[type[TrackableData], Counter]]:
        """The data models and fields that count events of this name about this parent."""
        if (parent, name) not in self._declared:
            counters = ((model, counter_fields(model)) for model in site.data_models(parent))
            found = [(model, fields.get(model.events.get(name, name))) for model, fields in counters]
            self._declared[parent, name] = [(model, field) for model, field in found if field is not None]
        return self._declared[parent, name]


def _declared_share(model: type[TrackableData], field: Counter, of: dict[str, Any], value: float | None) -> Share:
    added = amount(field, 1 if value is None else value)
    return Share(model, tuple(of[each] for each in model.counted_by), {field.name: added})


def _parent_model(subject: Subject) -> type[models.Model]:
    try:
        return apps.get_model(subject.model)
    except (LookupError, ValueError):
        raise PermanentError(f"there is no model {subject.model!r}") from None


def _parent_key(parent: type[models.Model], pk: str) -> str:
    """The parent's key, in the form in which the data models keep it."""
    try:
        key = str(parent._meta.pk.to_python(pk))
    except ValidationError:
        raise PermanentError(f"{pk[:80]!r} is no key of {parent._meta.label}") from None
    if len(key) > 255:
        raise PermanentError(f"the key of {parent._meta.label} has {len(key)} characters; 255 are kept")
    return key
