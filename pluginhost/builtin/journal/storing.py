"""Writes entries: those that are new, each once, and the good ones whatever else is in the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import DataError, IntegrityError, connections, transaction

from pluginhost import PermanentError
from pluginhost.builtin.journal.entries import entry_of
from pluginhost.builtin.journal.joining import join, turn
from pluginhost.builtin.journal.models import Entry
from pluginhost.builtin.journal.plugin import first_line
from pluginhost.db import insert_new, take_write_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from pluginhost import Event

#: Rows of one INSERT: PostgreSQL takes 65535 parameters.
ROWS = 500
#: The same for MySQL and MariaDB, which may take only 4 MiB: an event has up to 32 KiB, and escapes may double them.
ROWS_OF_MYSQL = 50
#: What a driver or a database raises for a row that it cannot hold; ValueError comes before the database is asked.
REFUSED = (DataError, IntegrityError, ValueError)


def store(events: Iterable[Event], using: str) -> tuple[dict[str, Exception], bool]:
    """Write the entries of these events, and join what they allow to be joined; one transaction.

    Why some could not be kept, by message id; and whether all that was to be joined is.
    """
    failures: dict[str, Exception] = {}
    entries: dict[str, Entry] = {}
    for event in events:
        try:
            entries[event.message_id] = entry_of(event)
        except PermanentError as error:
            failures[event.message_id] = error
    with turn(using), transaction.atomic(using):
        take_write_lock(connections[using], Entry)
        new, refused = insert(list(entries.values()), using)
        done = join(new, using)
    failures |= {key: refused[entry.message_id] for key, entry in entries.items() if entry.message_id in refused}
    return failures, done


def insert(entries: Sequence[Entry], using: str) -> tuple[list[Entry], dict[UUID, PermanentError]]:
    """Insert the entries that are not there yet: which were new, and why some were refused.

    Belongs into a transaction. Exact for workers that insert the same entries at the
    same time: the second waits for the first one's transaction. They are inserted in
    the order of their ids, so that no two workers wait for each other in a circle.
    """
    ordered = sorted(entries, key=lambda entry: entry.message_id)
    connection = connections[using]
    limit = connection.features.max_query_params or ROWS * 100
    most = ROWS_OF_MYSQL if connection.vendor == "mysql" else ROWS
    size = max(1, min(most, limit // len(Entry._meta.concrete_fields)))
    refused: dict[UUID, PermanentError] = {}
    new: set[UUID] = set()
    for start in range(0, len(ordered), size):
        new |= _insert_good(ordered[start : start + size], using, refused)
    return [entry for entry in ordered if entry.message_id in new], refused


def _insert_good(entries: Sequence[Entry], using: str, refused: dict[UUID, PermanentError]) -> set[UUID]:
    """Insert what the database takes; halve what it does not, until the bad ones are alone."""
    try:
        with transaction.atomic(using):
            return _insert(entries, using)
    except REFUSED as error:
        if len(entries) == 1:
            refused[entries[0].message_id] = PermanentError(first_line(error))
            return set()
    middle = len(entries) // 2
    return _insert_good(entries[:middle], using, refused) | _insert_good(entries[middle:], using, refused)


def _insert(entries: Sequence[Entry], using: str) -> set[UUID]:
    """One statement; the message ids that were not there.

    Not ``bulk_create(ignore_conflicts=True)``: it does not say what was new, and on
    SQLite it passes over rows that break any constraint.
    """
    connection = connections[using]
    fields = [field for field in Entry._meta.concrete_fields if not (field.primary_key or field.has_db_default())]
    rows = [
        [field.get_db_prep_save(getattr(entry, field.attname), connection) for field in fields] for entry in entries
    ]
    return insert_new(Entry, fields, rows, key=("message_id",), using=using)
