"""``audit``: whether every accepted event is accounted for."""

from __future__ import annotations

import threading

import pytest
from django.db import connections

from pluginhost import PermanentError, RetryableError, SkipEvent, host
from pluginhost.models import Account
from pluginhost.operations import letters
from pluginhost.operations.letters import Selection
from pluginhost.workers.worker import drain
from tests.commands import as_json, command, fails
from tests.samples import Recorder
from tests.steps import track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


def every_outcome(database, configure):
    """One event of each outcome in the lane ``recorder``."""
    configure("outbox", recorder={}, folder={})
    errors = {"skipped": SkipEvent, "dead": PermanentError, "discarded": PermanentError, "waits": RetryableError}

    def act(event):
        if event.name in errors:
            raise errors[event.name](event.name)

    Recorder.act["recorder"] = act
    track("delivered", "skipped", "dead", "discarded", "waits")
    drain(host.registry.runners, database)
    letters.discard(Selection(lanes=("recorder",), event="discarded"), database, reason="a test")
    track("waits too")


def test_lanes_that_balance(database, configure):
    every_outcome(database, configure)
    assert command("audit") == (
        "folder balances: accepted 6, delivered 5, skipped 0, waiting 1, dead 0, discarded 0\n"
        "recorder balances: accepted 6, delivered 1, skipped 1, waiting 2, dead 1, discarded 1\n"
    )
    report = as_json("audit")
    assert report["balances"] is True
    assert report["lanes"]["recorder"] == {
        "accepted": 6, "delivered": 1, "skipped": 1, "waiting": 2, "dead": 1, "discarded": 1,
        "missing": 0, "balances": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        ("delivered", "recorder: 1 accepted events are not accounted for"),
        ("accepted", "recorder: 5 more events are accounted for than were accepted"),
    ],
)
def test_an_account_that_was_tampered_with(database, configure, outcome, verdict):
    every_outcome(database, configure)
    Account.objects.filter(lane="recorder", outcome=outcome).update(n=0)

    printed, error = fails("audit")

    assert error == verdict
    assert "folder balances" in printed
    assert "recorder does not balance" in printed
    printed, error = fails("audit", "--json")
    assert error == verdict
    assert '"balances": false' in printed


def test_no_accounts(database, configure):
    configure("outbox", recorder={})
    assert command("audit") == "There are no accounts: no event has been accepted yet.\n"


def test_it_balances_while_workers_work(database, configure):
    configure("outbox", recorder={}, folder={})
    stop = threading.Event()

    def work():
        try:
            while not stop.is_set():
                track("a", "b")
                drain(host.registry.runners, database)
        finally:
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(20):
            command("audit")
    finally:
        stop.set()
        thread.join()
    assert as_json("audit")["balances"]
