"""The tables: an entry for each event, and what is known of each anonymous id."""

from __future__ import annotations

from typing import Any, Self

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _


class EntryQuerySet(models.QuerySet["Entry"]):
    def of_user(self, user: Any) -> Self:
        """What a user did, also before the log-in: a user object, or an id."""
        return self.filter(user_id=str(getattr(user, "pk", user)))

    def of_visitor(self, anonymous_id: str) -> Self:
        """What happened under an anonymous id, whoever it was."""
        return self.filter(anonymous_id=anonymous_id)

    def named(self, *names: str) -> Self:
        """The events of these names."""
        return self.filter(name__in=names)


class Entry(models.Model):
    """One event. What it does not have is empty text."""

    class Type(models.TextChoices):
        TRACK = "track", _("track")
        PAGE = "page", _("page")
        IDENTIFY = "identify", _("identify")
        ALIAS = "alias", _("alias")

    message_id = models.UUIDField(_("message id"), unique=True)
    type = models.CharField(_("type"), max_length=8, choices=Type.choices)
    name = models.CharField(_("event"), max_length=200)
    timestamp = models.DateTimeField(_("time"), help_text=_("When it happened."))
    user_id = models.CharField(_("user id"), max_length=255, blank=True, default="")
    joined = models.BooleanField(
        _("joined"), default=False, help_text=_("The event did not say who it was: the user logged in later.")
    )
    anonymous_id = models.CharField(_("anonymous id"), max_length=255, blank=True, default="")
    # NULL, so that SQLite too can use an index of the few rows that have one.
    previous_id = models.CharField(_("previous id"), max_length=255, null=True, blank=True)  # noqa: DJ001
    properties = models.JSONField(_("properties"), default=dict, blank=True, encoder=DjangoJSONEncoder)
    value = models.FloatField(_("value"), null=True, blank=True)
    subject_model = models.TextField(_("subject type"), blank=True, default="")
    subject_pk = models.TextField(_("subject key"), blank=True, default="")
    url = models.TextField(_("URL"), blank=True, default="")
    path = models.TextField(_("path"), blank=True, default="")
    referrer = models.TextField(_("referrer"), blank=True, default="")
    route = models.TextField(_("route"), blank=True, default="")
    method = models.TextField(_("method"), blank=True, default="")
    ip = models.TextField(_("IP address"), blank=True, default="")
    user_agent = models.TextField(_("user agent"), blank=True, default="")
    language = models.TextField(_("language"), blank=True, default="")
    created = models.DateTimeField(_("created"), db_default=Now(), help_text=_("When it was written here."))

    objects = EntryQuerySet.as_manager()

    class Meta:
        verbose_name = _("entry")
        verbose_name_plural = _("entries")
        ordering = ["-timestamp", "-id"]
        get_latest_by = "timestamp"
        indexes = [
            models.Index(fields=["timestamp", "id"], name="pluginhost_journal_time"),
            models.Index(fields=["type", "timestamp"], name="pluginhost_journal_type"),
            models.Index(fields=["name", "timestamp"], name="pluginhost_journal_name"),
            models.Index(fields=["user_id", "timestamp"], name="pluginhost_journal_user"),
            models.Index(fields=["anonymous_id", "user_id", "timestamp"], name="pluginhost_journal_visitor"),
            models.Index(
                fields=["previous_id", "user_id", "timestamp"],
                condition=models.Q(previous_id__isnull=False),
                name="pluginhost_journal_previous",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name}, {self.timestamp}"


class Browser(models.Model):
    """What is known of one anonymous id: whose entries without a user are, and until when.

    A row is made by the first event that has both ids. It stays when its entries
    are deleted: it is the memory of somebody having been here.
    """

    anonymous_id = models.CharField(_("anonymous id"), max_length=255)
    user_id = models.CharField(
        _("user id"),
        max_length=255,
        blank=True,
        default="",
        help_text=_("Whose they are; empty: nobody gets them."),
    )
    first = models.DateTimeField(_("first"), help_text=_("The first event that has a user."))
    until = models.DateTimeField(
        _("until"), help_text=_("The last event of that user before any of another; else the last of any.")
    )
    other = models.DateTimeField(_("other"), null=True, blank=True, help_text=_("Another user's first event."))
    behind = models.BooleanField(_("behind"), default=False, help_text=_("Entries are still to be joined or parted."))

    class Meta:
        verbose_name = _("browser")
        verbose_name_plural = _("browsers")
        constraints = [models.UniqueConstraint(fields=["anonymous_id"], name="pluginhost_journal_browser_once")]
        indexes = [
            models.Index(fields=["until"], name="pluginhost_journal_until"),
            models.Index(fields=["id"], condition=models.Q(behind=True), name="pluginhost_journal_behind"),
        ]

    def __str__(self) -> str:
        return self.anonymous_id
