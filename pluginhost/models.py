"""The tables of the outbox.

A request writes envelopes and nothing else. A worker folds envelopes with equal
lanes into chunks, with one delivery a lane; a lane claims deliveries. An event
that fails leaves its chunk and becomes a delivery with a payload of its own, so
that retry, bisection, dead letter and replay are one thing. Payloads are bytes:
a JSON column would cost more and could refuse what was accepted.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext


class Envelope(models.Model):
    """The events of one flush, as the request left them."""

    envelope_id = models.UUIDField(_("envelope id"), unique=True)
    version = models.PositiveSmallIntegerField(_("format version"))
    lanes = models.TextField(_("lanes"), help_text=_("The aliases, with commas between them."))
    n = models.PositiveIntegerField(_("events"))
    created = models.DateTimeField(_("created"), db_default=Now())
    payload = models.BinaryField(_("payload"))

    class Meta:
        verbose_name = _("envelope")
        verbose_name_plural = _("envelopes")

    def __str__(self) -> str:
        return str(self.envelope_id)


class Chunk(models.Model):
    """Up to 500 events or 1 MiB that several lanes read."""

    n = models.PositiveIntegerField(_("events"))
    created = models.DateTimeField(_("created"), db_default=Now())
    payload = models.BinaryField(_("payload"))

    class Meta:
        verbose_name = _("chunk")
        verbose_name_plural = _("chunks")

    def __str__(self) -> str:
        return f"chunk {self.pk}"


class Delivery(models.Model):
    """What one lane still owes: a chunk, or a payload of its own."""

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")
        DEAD = "dead", _("dead")

    lane = models.CharField(_("lane"), max_length=63)
    # No constraint: a chunk is deleted after its last delivery, by whoever finishes last.
    chunk = models.ForeignKey(
        Chunk, models.DO_NOTHING, null=True, db_constraint=False, related_name="deliveries", verbose_name=_("chunk")
    )
    payload = models.BinaryField(_("payload"), null=True)
    version = models.PositiveSmallIntegerField(_("format version"))
    n = models.PositiveIntegerField(_("events"))
    done = models.PositiveIntegerField(_("done"), default=0, help_text=_("So many events from the start are finished."))
    created = models.DateTimeField(_("created"), db_default=Now())
    due_at = models.DateTimeField(_("due at"), db_default=Now())
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    kills = models.PositiveSmallIntegerField(
        _("kills"), default=0, help_text=_("Workers that died, one after the other, while they held it.")
    )
    token = models.UUIDField(_("token"), null=True, help_text=_("Of the worker that has claimed it."))
    state = models.CharField(_("state"), max_length=7, choices=State.choices, default=State.WAITING)
    reason = models.TextField(_("reason"), blank=True, default="")
    message_id = models.CharField(_("message id"), max_length=36, blank=True, default="", db_index=True)
    event_name = models.CharField(_("event"), max_length=200, blank=True, default="")

    class Meta:
        verbose_name = _("delivery")
        verbose_name_plural = _("deliveries")
        # Of both states: a partial index would be smaller, but MySQL and MariaDB have none.
        indexes = [models.Index(fields=["lane", "state", "due_at", "id"], name="pluginhost_delivery_lane")]

    def __str__(self) -> str:
        return f"{self.lane} {self.pk}"


class DeadLetters(models.Manager["DeadLetter"]):
    def get_queryset(self) -> models.QuerySet[DeadLetter]:
        return super().get_queryset().filter(state=Delivery.State.DEAD)


class DeadLetter(Delivery):
    """The same, as far as it is dead: the admin shows these alone, and has permissions for them."""

    objects: ClassVar[DeadLetters] = DeadLetters()

    class Meta:
        proxy = True
        default_permissions = ("view", "change", "delete")
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")

    def __str__(self) -> str:
        if self.event_name:
            return self.event_name
        return ngettext("%d unreadable event", "%d unreadable events", self.n) % self.n


class Account(models.Model):
    """How many events of a lane had which outcome on a day (UTC).

    ``accepted`` is counted when a worker takes an envelope, the others in the
    transaction that finishes a delivery. What waits and what is dead is counted
    from the rows themselves.
    """

    class Outcome(models.TextChoices):
        ACCEPTED = "accepted", _("accepted")
        DELIVERED = "delivered", _("delivered")
        SKIPPED = "skipped", _("skipped")
        DISCARDED = "discarded", _("discarded")

    lane = models.CharField(_("lane"), max_length=63)
    day = models.DateField(_("day"))
    outcome = models.CharField(_("outcome"), max_length=9, choices=Outcome.choices)
    n = models.BigIntegerField(_("events"), default=0)

    class Meta:
        verbose_name = _("account")
        verbose_name_plural = _("accounts")
        constraints = [models.UniqueConstraint(fields=["lane", "day", "outcome"], name="pluginhost_account_once")]

    def __str__(self) -> str:
        return f"{self.lane} {self.day} {self.outcome}: {self.n}"


class Lane(models.Model):
    """What is known of a lane beside its deliveries. A lane about which there is nothing to say has no row."""

    name = models.CharField(_("lane"), max_length=63, primary_key=True)
    paused_at = models.DateTimeField(_("paused at"), null=True, blank=True)
    paused_because = models.CharField(_("paused because"), max_length=200, blank=True, default="")
    trouble = models.TextField(_("trouble"), blank=True, default="", help_text=_("Such as a hook that hung."))
    trouble_at = models.DateTimeField(_("trouble at"), null=True, blank=True)

    class Meta:
        verbose_name = _("lane")
        verbose_name_plural = _("lanes")

    def __str__(self) -> str:
        return self.name


class Forgotten(models.Model):
    """A mark that a person was forgotten: what they did before is not delivered, wherever it still turns up.

    The id itself is not kept, only its digest.
    """

    digest = models.CharField(_("digest"), max_length=64)
    at = models.DateTimeField(_("forgotten at"), db_default=Now())

    class Meta:
        verbose_name = _("forgotten person")
        verbose_name_plural = _("forgotten people")

    def __str__(self) -> str:
        return self.digest
