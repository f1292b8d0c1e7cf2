from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class BotsConfig(AppConfig):
    name = "pluginhost.builtin.bots"
    label = "pluginhost_bots"
    verbose_name = _("Robots")
    default_auto_field = "django.db.models.BigAutoField"
