from __future__ import annotations

from django.apps import AppConfig, apps
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class TimeSeriesConfig(AppConfig):
    name = "pluginhost_timeseries"
    verbose_name = _("Time series")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import ``trackabledata`` of each installed app, and show what it registered in the admin."""
        from pluginhost_timeseries.sites import site

        autodiscover_modules("trackabledata", register_to=site)
        if apps.is_installed("django.contrib.admin"):
            from pluginhost_timeseries.admin import show_all

            show_all()
