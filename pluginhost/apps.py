from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class PluginhostConfig(AppConfig):
    name = "pluginhost"
    verbose_name = _("Event tracking")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from pluginhost import checks  # noqa: F401 - importing registers them
