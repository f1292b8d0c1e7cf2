"""Deletes what is older than ``KEEP_DAYS``, a piece at a time."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import connections, transaction
from django.utils import timezone

from pluginhost.builtin.journal.joining import take_turn, turn
from pluginhost.builtin.journal.models import Browser, Entry
from pluginhost.db import first_keys, take_write_lock

if TYPE_CHECKING:
    from datetime import datetime

#: Rows of a table that one call of ``prune`` takes, at most. More than the events of a batch, so that it keeps up.
PRUNED_AT_ONCE = 2000
#: Browsers keep a cookie for 400 days at most (RFC 6265bis, 5.5): then nobody can use an anonymous id any more.
COOKIE_DAYS = 400


def prune(days: int, using: str) -> bool:
    """Delete some entries older than ``days``, and forget users of whom none is left. Whether there may be more."""
    old = timezone.now() - timedelta(days=days)
    entries = Entry.objects.using(using)
    with transaction.atomic(using):
        some = entries.filter(timestamp__lt=old).order_by("timestamp").select_for_update(skip_locked=True)
        deleted, _by_model = entries.filter(pk__in=first_keys(some, PRUNED_AT_ONCE)).delete()
    return max(deleted, _forget(old, using)) == PRUNED_AT_ONCE


def _forget(old: datetime, using: str) -> int:
    """Forget who it was whose entries are all too old, but not that it was somebody.

    Otherwise what came after that user's last event could go to the next one.
    """
    browsers = Browser.objects.using(using).order_by("until")
    with turn(using), transaction.atomic(using):
        take_write_lock(connections[using], Browser)
        take_turn(using)
        known = browsers.filter(until__lt=old, behind=False).exclude(user_id="")
        forgotten = browsers.filter(pk__in=first_keys(known, PRUNED_AT_ONCE)).update(user_id="", until=timezone.now())
        unusable = browsers.filter(until__lt=timezone.now() - timedelta(days=COOKIE_DAYS), user_id="")
        deleted, _by_model = browsers.filter(pk__in=first_keys(unusable, PRUNED_AT_ONCE)).delete()
    return max(forgotten, deleted)
