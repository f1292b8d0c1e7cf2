"""What the tests share: events, batches, and a plugin object."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from pluginhost import Batch, Event, Subject
from pluginhost.events import new_message_id
from pluginhost_timeseries.plugin import TimeSeries

if TYPE_CHECKING:
    from django.db.models import Model

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
DAY = NOON.date()


def plugin(alias: str = "timeseries", **options: Any) -> TimeSeries:
    return TimeSeries(alias, TimeSeries.Options(**options))


def event(
    name: str,
    subject: Model | Subject | None = None,
    value: float | None = None,
    *,
    at: dt.datetime = NOON,
    message_id: str | None = None,
) -> Event:
    if subject is not None and not isinstance(subject, Subject):
        subject = Subject(model=subject._meta.label, pk=str(subject.pk))
    return Event(
        type="track",
        name=name,
        message_id=message_id or new_message_id(),
        timestamp=at,
        subject=subject,
        value=value,
    )


def count(*events: Event, **options: Any) -> None:
    """Fold these events as one batch."""
    plugin(**options).aggregate(Batch(events))
