"""The accounts by day."""

from __future__ import annotations

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from pluginhost.admin.base import OutboxAdmin


class AccountAdmin(OutboxAdmin):
    """How many events had which outcome; what waits and what is dead is on the page of the lanes."""

    list_display = ["day", "lane", "outcome", "n"]
    list_display_links = None
    list_filter = ["lane", "outcome"]
    date_hierarchy = "day"
    ordering = ["-day", "lane", "outcome"]
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    search_help_text = _("Days are those of UTC.")
