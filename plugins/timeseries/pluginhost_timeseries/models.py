"""The tables: what a project subclasses, the counters of undeclared events, and the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.core.checks import CheckMessage

M = TypeVar("M", bound=models.Model)


def key_of(parent: models.Model) -> str:
    """The primary key of ``parent`` as text. Raises ``ValueError`` if it is not saved."""
    if parent.pk is None:
        raise ValueError(f"{parent._meta.label} instance is not saved, so nothing can be counted for it.")
    return str(parent.pk)


class TrackableQuerySet(models.QuerySet[M]):
    def for_parent(self, parent: models.Model) -> Self:
        """The rows of one parent: one, or one a day. Raises ``ValueError`` if it is not saved."""
        content_type = ContentType.objects.db_manager(self.db).get_for_model(parent)
        return self.filter(parent_content_type=content_type, parent_object_id=key_of(parent))


class TrackableData(models.Model):
    """Counters of a parent object, one row a parent. Subclass it, and add a numeric field for each counter.

    The parent may be an instance of any model with a primary key of one column.
    The subclass's ``Meta`` inherits from ``TrackableData.Meta``.
    """

    events: ClassVar[Mapping[str, str]] = {}
    """Name of an event -> the field that it counts into. Other events count into the field of their own name."""
    counted_by: ClassVar[tuple[str, ...]] = ("parent_content_type", "parent_object_id")
    """The fields of which one combination has one row."""

    parent_content_type = models.ForeignKey(
        ContentType, models.CASCADE, related_name="+", verbose_name=_("parent type")
    )
    parent_object_id = models.CharField(_("parent key"), max_length=255)
    parent = GenericForeignKey("parent_content_type", "parent_object_id")

    objects = TrackableQuerySet.as_manager()

    class Meta:
        abstract = True
        constraints = [
            models.UniqueConstraint(
                fields=["parent_content_type", "parent_object_id"], name="%(app_label)s_%(class)s_one_a_parent"
            )
        ]

    def __str__(self) -> str:
        return str(self.parent or self.parent_object_id)

    @classmethod
    def check(cls, **kwargs: Any) -> list[CheckMessage]:
        from pluginhost_timeseries.checks import check_data_model

        return [*super().check(**kwargs), *check_data_model(cls)]


class TrackableTimeSeriesData(TrackableData):
    """Counters of a parent object by day, one row a parent and day.

    The subclass's ``Meta`` inherits from ``TrackableTimeSeriesData.Meta``.
    """

    counted_by: ClassVar[tuple[str, ...]] = (*TrackableData.counted_by, "collected_during")

    collected_during = models.DateField(_("collected during"), db_index=True)

    class Meta:
        abstract = True
        get_latest_by = "collected_during"
        constraints = [
            models.UniqueConstraint(
                fields=["parent_content_type", "parent_object_id", "collected_during"],
                name="%(app_label)s_%(class)s_one_a_day",
            )
        ]

    def __str__(self) -> str:
        return f"{super().__str__()}, {self.collected_during}"


class EventCountQuerySet(models.QuerySet["EventCount"]):
    def for_subject(self, subject: models.Model) -> Self:
        """The counts of one object. Raises ``ValueError`` if it is not saved."""
        model = subject._meta.concrete_model
        assert model is not None
        return self.filter(subject_type=model._meta.label, subject_id=key_of(subject))


class EventCount(models.Model):
    """How often an event happened on a day: the events that no data model declares."""

    counted_by: ClassVar[tuple[str, ...]] = ("day", "name", "subject_type", "subject_id")

    day = models.DateField(_("day"))
    name = models.CharField(_("event"), max_length=200)
    subject_type = models.CharField(_("subject type"), max_length=255, blank=True, default="")
    subject_id = models.CharField(_("subject key"), max_length=255, blank=True, default="")
    count = models.BigIntegerField(_("count"), default=0)
    # Not a float: a sum of floats depends on the order in which they are added, and values are often prices.
    total = models.DecimalField(
        _("total"), max_digits=30, decimal_places=6, default=0, help_text=_("The sum of the events' values.")
    )

    objects = EventCountQuerySet.as_manager()

    class Meta:
        verbose_name = _("event count")
        verbose_name_plural = _("event counts")
        ordering = ["-day", "name", "subject_type", "subject_id"]
        get_latest_by = "day"
        constraints = [
            models.UniqueConstraint(
                fields=["day", "name", "subject_type", "subject_id"], name="pluginhost_timeseries_eventcount_once"
            )
        ]
        indexes = [
            models.Index(fields=["name", "day"], name="pluginhost_ts_name_day"),
            models.Index(fields=["subject_type", "subject_id"], name="pluginhost_ts_subject"),
        ]

    def __str__(self) -> str:
        return f"{self.name}, {self.day}: {self.count}"


class LedgerEntry(models.Model):
    """A message id that is counted already, so that an event delivered again counts once."""

    alias = models.CharField(_("alias"), max_length=63)
    message_id = models.CharField(_("message id"), max_length=36)
    created = models.DateTimeField(_("created"), db_default=Now())

    class Meta:
        verbose_name = _("ledger entry")
        verbose_name_plural = _("ledger entries")
        constraints = [
            models.UniqueConstraint(fields=["alias", "message_id"], name="pluginhost_timeseries_ledger_once")
        ]
        indexes = [models.Index(fields=["created"], name="pluginhost_ts_created")]

    def __str__(self) -> str:
        return f"{self.alias} {self.message_id}"
