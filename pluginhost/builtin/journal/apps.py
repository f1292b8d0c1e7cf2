from __future__ import annotations

from django.apps import AppConfig, apps
from django.utils.translation import gettext_lazy as _


class JournalConfig(AppConfig):
    name = "pluginhost.builtin.journal"
    label = "pluginhost_journal"
    verbose_name = _("Journal")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Show the entries in the admin."""
        if apps.is_installed("django.contrib.admin"):
            from pluginhost.builtin.journal.admin import show

            show()
