"""The site's own list of robots, kept in the admin."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext_lazy as _

from pluginhost.builtin.bots.browsers import browser_matched
from pluginhost.builtin.bots.matching import matcher


class Robot(models.Model):
    """A robot by its user agent. Plain text and no regular expression, so that no row can hang a worker."""

    class Kind(models.TextChoices):
        CONTAINS = "contains", _("contains")
        STARTS = "starts", _("starts with")
        IS = "is", _("is exactly")

    kind = models.CharField(_("the user agent"), max_length=8, choices=Kind.choices, default=Kind.CONTAINS)
    pattern = models.CharField(
        _("text"),
        max_length=512,
        help_text=_("Upper and lower case mean the same. The first 512 characters of a user agent count."),
    )
    note = models.CharField(_("note"), max_length=200, blank=True, default="")
    enabled = models.BooleanField(_("enabled"), default=True)
    created = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("robot")
        verbose_name_plural = _("robots")
        ordering = ["pattern", "kind"]
        constraints = [models.UniqueConstraint(fields=["kind", "pattern"], name="pluginhost_bots_robot_once")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.pattern!r}"

    def clean(self) -> None:
        """Refuse what would take people for robots."""
        text = self.pattern.strip()
        if self.pattern and not text:
            raise ValidationError({"pattern": _("An empty text matches every user agent.")}, code="empty")
        self.pattern = text
        if self.kind not in self.Kind.values:
            return  # an error of its own
        browser = browser_matched(matcher([(self.kind, text)]))
        if browser is not None and self.kind != self.Kind.IS:
            raise ValidationError(
                {
                    "pattern": ValidationError(
                        _("This matches people too: %(browser)s, for one."),
                        code="people",
                        params={"browser": browser},
                    )
                }
            )
