"""The plugin ``journal``: its options, and the hook that writes.

Models are imported within functions: the host imports this module before it
checks that INSTALLED_APPS has the app, and then says which line is missing.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Annotated, ClassVar
from uuid import UUID

import msgspec
from django.db import Error, InterfaceError, OperationalError, router
from django.urls import NoReverseMatch, reverse

import pluginhost
from pluginhost import Batch, PartialFailure, RetryableError, SkipEvent, hookimpl
from pluginhost.events import EventType, sample_event

if TYPE_CHECKING:
    from django.core.checks import CheckMessage

    from pluginhost.plugin import LaneOptions, Person

logger = logging.getLogger("pluginhost.delivery")

#: Seconds between two looks for what is older than ``KEEP_DAYS``, in one process.
PRUNE_EVERY = 3600.0
#: Other ids of a forgotten person that are named, at most.
NAMED = 20
ALL_TYPES: frozenset[EventType] = frozenset({"track", "page", "identify", "alias"})


class Journal(pluginhost.Plugin):
    """Keeps each event in the project's own database, once, and gives anonymous ones the user who logged in later."""

    class Options(pluginhost.Options):
        KEEP_DAYS: Annotated[int, msgspec.Meta(ge=1, le=36500)] | None = None
        """Entries of events that happened longer ago are deleted; None: never."""
        TYPES: Annotated[frozenset[EventType], msgspec.Meta(min_length=1)] = ALL_TYPES
        """The types of event that are kept."""
        DATABASE: str | None = None
        """The database that is written to; the router's unless given."""
        ADMIN: bool = True
        """Whether the Django admin shows the entries."""

    options: Options
    purpose = "analytics"
    personal_data = True
    dedupes = True
    django_app: ClassVar[str | None] = "pluginhost.builtin.journal"

    _prune_at = 0.0
    """When to look for old entries, by the monotonic clock."""
    _behind = True
    """Whether entries may be left to be joined; at first, of a process that was killed."""

    def __init__(self, alias: str, options: Options, lane: LaneOptions | None = None) -> None:
        super().__init__(alias, options, lane)
        self.event_types = options.TYPES

    @property
    def database(self) -> str:
        """The alias of the database that is written to."""
        from pluginhost.builtin.journal.models import Entry

        return self.options.DATABASE or router.db_for_write(Entry)

    def check(self) -> list[CheckMessage]:
        from pluginhost.builtin.journal.checks import check_alias

        return check_alias(self)

    @hookimpl
    def aggregate(self, batch: Batch) -> None:
        """Write an entry for each event that has none, and join what can be joined."""
        from pluginhost.builtin.journal.storing import store

        begun = monotonic()
        using = self.database
        try:
            failures, done = store(batch, using)
        except (OperationalError, InterfaceError) as error:
            raise RetryableError(first_line(error)) from error
        self._behind |= not done
        self._keep_house(using, begun + self.timeout / 2)
        if failures:
            raise PartialFailure(failures)

    def send_test(self) -> str:
        event = sample_event()
        if event.type not in self.event_types:
            raise SkipEvent(f"TYPES leaves out events of the type {event.type!r}")
        self.aggregate(Batch([event]))
        return self._where(event.message_id)

    def forget(self, person: Person) -> str:
        """Delete the person's entries, and who it was that had a browser."""
        from pluginhost.builtin.journal.forgetting import forget

        try:
            done = forget(person, self.database)
        except (OperationalError, InterfaceError) as error:
            raise RetryableError(first_line(error)) from error
        said = f"{_count(done.entries, 'entry was', 'entries were')} deleted."
        if done.browsers:
            said += f" Of {_count(done.browsers, 'browser', 'browsers')} it is no longer known whose it was."
        if done.aliases:
            named = ", ".join(map(repr, done.aliases[:NAMED]))
            said += f" Aliases said that the person is {named} too: forget these as well, unless others have them."
        return said

    def explain(self, message_id: str) -> str | None:
        """Where the entry of this event is."""
        from pluginhost.builtin.journal.models import Entry

        try:
            entry = Entry.objects.using(self.database).filter(message_id=UUID(message_id)).first()
        except ValueError:
            return None
        if entry is None:
            return None
        return f"The table {Entry._meta.db_table} of the database {self.database!r} has entry {entry.pk}."

    def _keep_house(self, using: str, until: float) -> None:
        """Join what is left, and now and then delete what is old. That this fails is no failure of the batch."""
        from pluginhost.builtin.journal.joining import catch_up
        from pluginhost.builtin.journal.retention import prune

        try:
            while self._behind and monotonic() < until:
                self._behind = catch_up(using)
            if self.options.KEEP_DAYS is not None and monotonic() >= self._prune_at:
                self._prune_at = monotonic() + PRUNE_EVERY
                if prune(self.options.KEEP_DAYS, using):
                    self._prune_at = 0.0
        except Error:
            logger.warning("plugin %s: could not join or delete old entries", self.alias, exc_info=True)

    def _where(self, message_id: str) -> str:
        """Where to look at the entry of this event."""
        from pluginhost.builtin.journal.models import Entry

        entry = Entry.objects.using(self.database).get(message_id=message_id)
        table = f"The table {Entry._meta.db_table} of the database {self.database!r} has entry {entry.pk} now"
        try:
            url = reverse("admin:pluginhost_journal_entry_change", args=[entry.pk])
        except NoReverseMatch:
            return f"{table}. It stays there."
        return f"{table}, and the admin shows it at {url}. It stays there."


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def first_line(error: Exception) -> str:
    """What the database said, without the lines that quote rows."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]
