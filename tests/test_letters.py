"""Dead letters: found, read, sent again, discarded; by the functions and by the commands."""

from __future__ import annotations

import pytest

from pluginhost import PermanentError, host
from pluginhost.delivery import letters
from pluginhost.delivery.letters import Selection
from pluginhost.delivery.worker import drain
from pluginhost.models import Delivery
from tests.samples import Recorder
from tests.steps import account, raising, run, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


def refused(database, configure, *names, lane="recorder"):
    """Events of these names that became dead letters."""
    configure("outbox", **{lane: {}})
    Recorder.act[lane] = raising(lambda: PermanentError("refused"))
    track(*names)
    run(database, lane)
    Recorder.act.clear()


def test_what_is_sent_again_arrives_with_its_message_id(database, configure):
    refused(database, configure, "a", "b")
    ids = sorted(Delivery.objects.values_list("message_id", flat=True))

    assert letters.replay(Selection(lanes=("recorder",)), database) == 2

    assert account(database, "recorder") == {"accepted": 2, "waiting": 2}
    drain(host.registry.runners, database)
    assert sorted(seen("recorder")) == ["a", "b"]
    assert sorted(event.message_id for event in Recorder.seen["recorder"]) == ids
    assert account(database, "recorder") == {"accepted": 2, "delivered": 2}


def test_discarded_letters_are_counted_and_gone(database, configure):
    refused(database, configure, "a", "b", "c")
    steps = []

    n = letters.discard(Selection(event="b"), database, reason="a test", progress=steps.append)

    assert (n, steps) == (1, [1])
    assert [letter.event_name for letter in letters.read(Delivery.objects.order_by("id"))] == ["a", "c"]
    assert account(database, "recorder") == {"accepted": 3, "dead": 2, "discarded": 1}
