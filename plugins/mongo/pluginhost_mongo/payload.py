"""From an event to a document. Pure: no server, no options but those given."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from pluginhost import Event, PermanentError

if TYPE_CHECKING:
    from pluginhost import Person

#: MongoDB manual, "Naming Restrictions" (7.0).
COLLECTION = r"^(?!system\.)[^$\x00]{1,200}$"
#: What says how an event is delivered, not what happened.
NOT_STORED = ("message_id", "plugins", "visitor_ids")
STORED = tuple(name for name in Event.__struct_fields__ if name not in NOT_STORED)
#: Those of them that are structs.
EMBEDDED = frozenset({"context", "subject"})


def document(event: Event) -> dict[str, Any]:
    """The event's document: ``_id`` is its message id, so that the same event twice is one document.

    Fields that are None or empty are left out. ``timestamp`` stays a datetime (BSON
    keeps milliseconds); ``context`` and ``subject`` are embedded documents.
    """
    stored: dict[str, Any] = {"_id": event.message_id}
    for name in STORED:
        value = getattr(event, name)
        if value is None:
            continue
        if name in EMBEDDED:
            value = {each: inner for each, inner in asdict(value).items() if inner is not None}
        if value or value != {}:
            stored[name] = value
    return stored


def collection(event: Event, alias: str, default: str) -> str:
    """The collection that the caller chose for this event, or ``default``. Raises ``PermanentError``."""
    tuning = event.tuning(alias)
    if "collection" not in tuning:
        return default
    chosen = tuning["collection"]
    if not isinstance(chosen, str) or not re.match(COLLECTION, chosen):
        raise PermanentError(f"{chosen!r:.100} is no name for a collection")
    return chosen


def of_person(person: Person) -> dict[str, Any]:
    """What matches the documents of a person. The other id of an alias may be of either kind."""
    users, visitors = [id_ for id_ in person.user_ids if id_], [id_ for id_ in person.anonymous_ids if id_]
    return {
        "$or": [
            {"user_id": {"$in": users}},
            {"anonymous_id": {"$in": visitors}},
            {"previous_id": {"$in": [*users, *visitors]}},
        ]
    }
