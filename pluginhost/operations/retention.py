"""What is thrown away with time: old dead letters, the days of old accounts, and chunks that nobody reads."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

from django.db import connections, transaction
from django.utils import timezone

from pluginhost.conf import get_settings
from pluginhost.db import add_up, take_write_lock
from pluginhost.delivery.settling import sweep_chunks
from pluginhost.models import Account
from pluginhost.operations import letters
from pluginhost.operations.steps import STEP, tried_again

if TYPE_CHECKING:
    from django.db.models import QuerySet

#: The day under which the sums of all older days are kept.
EPOCH = dt.date(1970, 1, 1)

EXPIRED = "older than DEAD_LETTER_DAYS"


def clean(using: str) -> dict[str, int]:
    """Throw away what the settings say. Returns how many dead events, rows of accounts and chunks.

    Several processes may do it at once.
    """
    return {
        "dead_letters": _discard_old_letters(using),
        "accounts": _fold_accounts(using),
        "chunks": sweep_chunks(using),
    }


def _discard_old_letters(using: str) -> int:
    """By the time of their death, not of their acceptance: somebody should have had the time to look at them."""
    days = get_settings().DEAD_LETTER_DAYS
    if days is None:
        return 0
    died_before = timezone.now() - dt.timedelta(days=days)
    return letters.discard(letters.Selection(died_before=died_before), using, reason=EXPIRED)


def _fold_accounts(using: str) -> int:
    """Keep what is older than ACCOUNT_DAYS as one row for each lane and outcome. Returns how many rows went."""
    oldest = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=get_settings().ACCOUNT_DAYS)
    old = Account.objects.using(using).filter(day__gt=EPOCH, day__lt=oldest).order_by("id")
    folded = 0
    while old.exists() and (n := tried_again(partial(_fold_step, old, using), using)):
        folded += n
    return folded


def _fold_step(old: QuerySet[Account], using: str) -> int:
    with transaction.atomic(using):
        take_write_lock(connections[using], Account)
        rows = list(old.select_for_update()[:STEP])
        sums: dict[tuple[str, str], int] = defaultdict(int)
        for row in rows:
            sums[row.lane, row.outcome] += row.n
        folded = [{"lane": lane, "day": EPOCH, "outcome": outcome, "n": n} for (lane, outcome), n in sums.items()]
        add_up(Account, folded, key=("lane", "day", "outcome"), add=("n",), using=using)
        Account.objects.using(using).filter(id__in=[row.pk for row in rows]).delete()
    return len(rows)
