from __future__ import annotations

from django.apps import AppConfig, apps
from django.db.backends.signals import connection_created
from django.utils.translation import gettext_lazy as _


class PluginhostConfig(AppConfig):
    name = "pluginhost"
    verbose_name = _("Event tracking")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.contrib.auth.signals import user_logged_in, user_logged_out

        from pluginhost import checks, db, identity  # noqa: F401 - importing the checks registers them

        connection_created.connect(db.note_connection, dispatch_uid="pluginhost.db")
        db.note_connections()
        user_logged_out.connect(identity.note_sign_out, dispatch_uid="pluginhost.identity")
        user_logged_in.connect(identity.note_sign_in, dispatch_uid="pluginhost.identity")
        if apps.is_installed("django.contrib.admin"):
            from pluginhost.admin import show

            show()
