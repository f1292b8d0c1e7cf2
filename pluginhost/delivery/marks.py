"""Marks of people who were forgotten: what they did before is not delivered, wherever it still turns up.

A mark holds no id, only its digest. It concerns what happened up to its moment, and
in the second after it: a person who comes back later is tracked again. Marks are
read for each claim, so they are kept in the process, and one small query says
whether there are more.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import TYPE_CHECKING, Literal

from django.conf import settings
from django.db import connections, transaction
from django.db.models import Func
from django.db.models.functions import Now
from django.utils import timezone

from pluginhost.delivery.sql import select
from pluginhost.models import Forgotten

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pluginhost.events import Event
    from pluginhost.plugin import Person

#: The kind of an id, and the id.
Key = tuple[Literal["user", "anonymous"], str]
#: A row: its id, its digest, its moment.
Row = tuple[int, str, dt.datetime]

#: So many of the last rows are counted each time: they may become visible in another order than that of their ids.
WINDOW = 1000
#: Rows of one transaction, at most: ten others may overtake it before a row could stay unseen.
ROWS = 100
#: How far a mark reaches beyond its moment. Events have the times of web servers, a mark has that of the database,
#: and a person may be forgotten within milliseconds of the last event.
AHEAD = dt.timedelta(seconds=1)

NEWEST = 'SELECT MAX(id), COUNT(*) FROM "pluginhost_forgotten" WHERE "id" > %s'


def digest(key: Key) -> str:
    """SHA-256 of the kind of id, a NUL and the id, in hexadecimal digits."""
    return hashlib.sha256("\0".join(key).encode("utf-8", "surrogatepass")).hexdigest()


def concerns(at: dt.datetime, timestamp: dt.datetime) -> bool:
    """Whether a mark of this moment concerns what happened then."""
    return timestamp <= at + AHEAD


def keys_of(person: Person) -> list[Key]:
    """A person's ids, each once; empty ones are none."""
    users: list[Key] = [("user", id_) for id_ in person.user_ids if id_]
    return list(dict.fromkeys([*users, *(("anonymous", id_) for id_ in person.anonymous_ids if id_)]))


def keys_in(
    user_id: str | None, anonymous_id: str | None, previous_id: str | None, visitor_ids: Mapping[str, str]
) -> Iterator[Key]:
    """Whose an event with these ids is.

    The other id of an alias may be of either kind. What a provider's cookie calls the
    browser is an anonymous id too.
    """
    if user_id:
        yield "user", user_id
    if anonymous_id:
        yield "anonymous", anonymous_id
    if previous_id:
        yield "user", previous_id
        yield "anonymous", previous_id
    for id_ in visitor_ids.values():
        if id_ and id_ != anonymous_id:
            yield "anonymous", id_


class Marks:
    """The marks of one database as they were at one moment. Never changed, so that threads may share them."""

    __slots__ = ("_at", "last", "recent")

    def __init__(self, rows: Iterable[Row] = (), before: Marks | None = None) -> None:
        """``rows``, and those of ``before``."""
        rows = list(rows)
        self._at: dict[str, dt.datetime] = dict(before._at) if before else {}
        for _, name, at in rows:
            self._at[name] = max(at, self._at.get(name, at))
        ids = {id_ for id_, _, _ in rows} | (before.recent if before else set())
        self.last: int = max(ids, default=0)
        self.recent: frozenset[int] = frozenset(id_ for id_ in ids if id_ > self.last - WINDOW)

    def __bool__(self) -> bool:
        """Whether anybody has been forgotten."""
        return bool(self._at)

    def hold(self, event: Event) -> bool:
        """Whether this is an event of somebody who has been forgotten since."""
        keys = keys_in(event.user_id, event.anonymous_id, event.previous_id, event.visitor_ids)
        return any(self._holds(key, event.timestamp) for key in keys)

    def _holds(self, key: Key, timestamp: dt.datetime) -> bool:
        at = self._at.get(digest(key))
        return at is not None and concerns(at, timestamp)

    def at(self, key: Key) -> dt.datetime | None:
        """Up to when what this id did is forgotten."""
        return self._at.get(digest(key))


#: Database -> its marks, as this process last saw them. Only ever replaced as a whole: a fork, or another thread,
#: finds one or the other.
_known: dict[str, Marks] = {}


def mark(person: Person, using: str) -> Marks:
    """Mark the person's ids with the database's clock, and commit. Returns all marks, with these among them.

    Raises ``RuntimeError`` within a transaction: others must see the marks before anything is deleted.
    """
    connection = connections[using]
    # MySQL's own clock is of the session's time zone, which Django does not set.
    utc = connection.vendor == "mysql" and settings.USE_TZ
    now = Func(function="UTC_TIMESTAMP", template="%(function)s(6)") if utc else Now()
    rows = [Forgotten(digest=digest(key), at=now) for key in keys_of(person)]
    for start in range(0, len(rows), ROWS):
        with transaction.atomic(using, durable=True):
            Forgotten.objects.using(using).bulk_create(rows[start : start + ROWS])
    _known.pop(using, None)
    return marks(using)


def marks(using: str) -> Marks:
    """The marks that are committed now. One query, of at most ``WINDOW`` rows, unless there are new ones."""
    known = _known.get(using) or Marks()
    since = max(known.last - WINDOW, 0)
    [(last, n)] = select(using, NEWEST, [since])
    if (last or 0, n) == (known.last, len(known.recent)):
        return known
    newest = Forgotten.objects.using(using).filter(id__gt=since)
    rows = _rows(newest.values_list("id", "digest", "at"), using)
    if known.recent <= {id_ for id_, _, _ in rows}:
        current = Marks(rows, known)
    else:  # rows have gone: a test has emptied the table
        current = Marks(_rows(Forgotten.objects.using(using).values_list("id", "digest", "at"), using))
    _known[using] = current
    return current


def _rows(found: Iterable[Row], using: str) -> list[Row]:
    return [(id_, name, _moment(at, using)) for id_, name, at in found]


def _moment(at: dt.datetime, using: str) -> dt.datetime:
    """What the database's clock said, as an aware time. Without USE_TZ SQLite says UTC, the others local time."""
    if timezone.is_aware(at):
        return at
    return timezone.make_aware(at, dt.UTC if connections[using].vendor == "sqlite" else timezone.get_default_timezone())
