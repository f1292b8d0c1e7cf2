"""``path("consent/", include("pluginhost.builtin.consent.urls"))``."""

from __future__ import annotations

from django.urls import path

from pluginhost.builtin.consent.views import choose

app_name = "pluginhost_consent"
urlpatterns = [path("", choose, name="choose")]
