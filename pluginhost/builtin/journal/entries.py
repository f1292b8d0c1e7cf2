"""From an event to an entry. Pure: writes nothing."""

from __future__ import annotations

import uuid
from datetime import MAXYEAR, MINYEAR
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.utils import timezone

from pluginhost import PermanentError
from pluginhost.builtin.journal.models import Entry

if TYPE_CHECKING:
    import datetime as dt

    from pluginhost import Event


def entry_of(event: Event) -> Entry:
    """The entry of an event. Raises ``PermanentError`` if it is none that can be kept."""
    subject, context = event.subject, event.context
    entry = Entry(
        message_id=_uuid(event.message_id),
        type=event.type,
        name=event.name,
        timestamp=_moment(event.timestamp),
        user_id=event.user_id or "",
        anonymous_id=event.anonymous_id or "",
        previous_id=event.previous_id or None,
        properties=event.properties,
        value=event.value,
        subject_model=subject.model if subject else "",
        subject_pk=subject.pk if subject else "",
        url=context.url or "",
        path=context.path or "",
        referrer=context.referrer or "",
        route=context.route or "",
        method=context.method or "",
        ip=context.ip or "",
        user_agent=context.user_agent or "",
        language=context.language or "",
    )
    for field in Entry._meta.concrete_fields:
        text = getattr(entry, field.attname) if isinstance(field, models.CharField) else None
        if text and field.max_length is not None and len(text) > field.max_length:  # SQLite would not say so
            raise PermanentError(f"{field.name} has {len(text)} characters; {field.max_length} are kept")
    return entry


def _uuid(message_id: str) -> uuid.UUID:
    try:
        return uuid.UUID(message_id)
    except ValueError:
        raise PermanentError(f"{message_id[:80]!r} is no message id") from None


def _moment(timestamp: dt.datetime) -> dt.datetime:
    """The time as the project keeps times, if it has a date in every time zone."""
    if not MINYEAR < timestamp.year < MAXYEAR:
        raise PermanentError(f"{timestamp} has no date in some time zones")
    return timestamp if settings.USE_TZ else timezone.make_naive(timestamp, timezone.get_default_timezone())
