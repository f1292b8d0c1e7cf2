"""The admin: the lanes and what may be done to them, dead letters, accounts.

Imported only where ``django.contrib.admin`` is installed.
"""

from __future__ import annotations

from django.contrib import admin

from pluginhost.admin.accounts import AccountAdmin
from pluginhost.admin.lanes import LaneAdmin
from pluginhost.admin.letters import DeadLetterAdmin
from pluginhost.models import Account, DeadLetter, Lane

__all__ = ["AccountAdmin", "DeadLetterAdmin", "LaneAdmin", "show"]


def show() -> None:
    """Register what the project has not registered itself."""
    for model, admin_class in ((Lane, LaneAdmin), (DeadLetter, DeadLetterAdmin), (Account, AccountAdmin)):
        if not admin.site.is_registered(model):
            admin.site.register(model, admin_class)
