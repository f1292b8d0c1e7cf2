"""What tests of lanes do again and again: track, let a lane take some steps, look at what came of it."""

from __future__ import annotations

import datetime as dt
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.db.models import F, Sum
from django.db.models.functions import Now

from pluginhost import host
from pluginhost.delivery import accounts
from pluginhost.delivery.intake import take
from pluginhost.delivery.work import step
from pluginhost.models import Delivery, Envelope
from tests.samples import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pluginhost.delivery.settling import Outcome


def track(*names: str) -> None:
    """One envelope of these events."""
    with host.batch():
        for name in names:
            host.track(None, name)


def seen(alias: str) -> list[str]:
    return [event.name for event in Recorder.seen.get(alias, [])]


def given(argument: Any) -> list[Any]:
    """The events that a hook was given, be it one or a batch."""
    return list(argument) if hasattr(argument, "events") else [argument]


def raising(make: Callable[[], BaseException], *names: str) -> Callable[[Any], None]:
    """What a sample plugin does: raise when an event of these names, or any event, is delivered."""

    def act(argument: Any) -> None:
        if not names or any(event.name in names for event in given(argument)):
            raise make()

    return act


def make_due(**values: Any) -> None:
    """Let all waiting and all leases be over."""
    Delivery.objects.filter(state="waiting").update(due_at=Now() - dt.timedelta(seconds=1), **values)


def run(database: str, lane: str) -> Outcome | None:
    """Take the envelopes, and let the lane take one step."""
    take(database)
    return step(host.registry.runners[lane], database)


def rounds(database: str, lane: str, number: int = 1) -> None:
    """So many steps of a lane, each as soon as something may be due."""
    take(database)
    for _ in range(number):
        make_due()
        step(host.registry.runners[lane], database)


def account(database: str, lane: str) -> dict[str, int]:
    """The lane's account, which balances, without its zeros."""
    found = accounts.read(database)[lane]
    assert accounts.balances(found), found
    return {outcome: n for outcome, n in found.items() if n}


def seconds_until_due() -> float:
    """Of the only delivery."""
    return Delivery.objects.annotate(wait=F("due_at") - Now()).get().wait.total_seconds()


def stored() -> int:
    """Events in envelopes that no worker has taken."""
    return Envelope.objects.aggregate(total=Sum("n"))["total"] or 0


@contextmanager
def outbox_renamed(database: str) -> Iterator[None]:
    """The site as it is when a migration was forgotten."""
    connection = connections[database]
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE pluginhost_envelope RENAME TO elsewhere")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO pluginhost_envelope")
