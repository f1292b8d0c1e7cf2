"""The plugin: its options, and the hook that counts.

Models are imported within functions: the host imports this module before it
checks that INSTALLED_APPS has the app, and then says which line is missing.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Annotated, ClassVar
from zoneinfo import ZoneInfo

import msgspec
from django.db import DataError, Error, IntegrityError, InterfaceError, OperationalError, router
from django.utils import timezone

import pluginhost
from pluginhost import PermanentError, RetryableError, hookimpl

if TYPE_CHECKING:
    import datetime as dt

    from django.core.checks import CheckMessage

    from pluginhost import Batch, Person
    from pluginhost_timeseries.plan import Planner

logger = logging.getLogger("pluginhost.timeseries")

#: Seconds between two looks for old entries of the ledger, in one process.
PRUNE_EVERY = 3600.0


class TimeSeries(pluginhost.Plugin):
    """Counts events in the project's own database: by object and day in data models, else by name and day."""

    class Options(pluginhost.Options):
        TIME_ZONE: str | None = None
        """The time zone whose days are counted by; ``settings.TIME_ZONE`` unless given."""
        DATABASE: str | None = None
        """The database that is written to; the router's unless given."""
        LEDGER_DAYS: Annotated[int, msgspec.Meta(ge=1)] = 90
        """So many days an event that is delivered again is recognised."""
        GENERIC: bool = True
        """Whether events that no data model declares are counted, by name and day."""
        ADMIN: bool = True
        """Whether the Django admin shows the counts."""

        def __post_init__(self) -> None:
            if self.TIME_ZONE is not None:
                try:
                    ZoneInfo(self.TIME_ZONE)
                except (KeyError, ValueError, OSError):
                    raise ValueError(f"TIME_ZONE is {self.TIME_ZONE!r}; there is no such time zone") from None

    purpose = "analytics"
    personal_data = False
    dedupes = True
    unread = frozenset({"properties", "context"})
    batch_size = 5000  # a transaction costs much the same for few events as for many
    django_app: ClassVar[str | None] = "pluginhost_timeseries"

    _prune_at = 0.0
    """When to look for old entries of the ledger, by the monotonic clock."""

    @property
    def database(self) -> str:
        """The alias of the database that is written to."""
        from pluginhost_timeseries.models import LedgerEntry

        return self.options.DATABASE or router.db_for_write(LedgerEntry)

    @property
    def zone(self) -> dt.tzinfo:
        """The time zone whose days are counted by."""
        name = self.options.TIME_ZONE
        return ZoneInfo(name) if name else timezone.get_default_timezone()

    def check(self) -> list[CheckMessage]:
        from pluginhost_timeseries.checks import check_alias

        return check_alias(self)

    @hookimpl
    def aggregate(self, batch: Batch) -> None:
        """Count each event once, however often and by how many workers it is delivered."""
        from pluginhost_timeseries.fold import fold

        try:
            plan = self._planner().plan(batch)
            if plan.shares:
                fold(plan, self.alias, self.database, repeated=batch.attempt > 1)
        except (OperationalError, InterfaceError) as error:
            raise RetryableError(_first_line(error)) from error
        except (DataError, IntegrityError) as error:
            raise PermanentError(_first_line(error)) from error
        self._prune()
        plan.raise_failures()

    def forget(self, person: Person) -> str:  # noqa: ARG002
        """Nothing: counters name nobody. The host does not ask, as ``personal_data`` is False."""
        return "Nothing is kept of a person: only how often what happened on which day, and to which object."

    def explain(self, message_id: str) -> str | None:
        """Whether the event is counted, as far as the ledger remembers."""
        from pluginhost_timeseries.models import LedgerEntry

        entries = LedgerEntry.objects.using(self.database).filter(alias=self.alias, message_id=message_id)
        created = entries.values_list("created", flat=True).first()
        if created is None:
            return None
        since = timezone.localtime(created) if timezone.is_aware(created) else created
        return f"It is counted: the ledger has it since {since:%Y-%m-%d %H:%M:%S}."

    def _planner(self) -> Planner:
        from django.contrib.contenttypes.models import ContentType

        from pluginhost_timeseries.plan import Planner

        content_types = ContentType.objects.db_manager(self.database)
        return Planner(
            self.zone,
            generic=self.options.GENERIC,
            content_type_id=lambda model: content_types.get_for_model(model).pk,
        )

    def _prune(self) -> None:
        """Now and then, delete old entries of the ledger. That this fails is no failure of the batch."""
        from pluginhost_timeseries.ledger import prune

        if monotonic() < self._prune_at:
            return
        self._prune_at = monotonic() + PRUNE_EVERY
        try:
            if prune(self.options.LEDGER_DAYS, self.database):
                self._prune_at = 0.0
        except Error:
            logger.warning("plugin %s: the ledger could not be pruned", self.alias, exc_info=True)


def _first_line(error: Exception) -> str:
    """What the database said, without the lines that quote rows."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]
