"""What the task of the ingest queue does with messages, also with such as the host never wrote."""

from __future__ import annotations

import uuid

import pytest
from django.db import DatabaseError

from pluginhost import host
from pluginhost.delivery.envelopes import VERSION
from pluginhost.delivery.ingest import ingest
from pluginhost.models import Delivery, Envelope
from pluginhost.workers.worker import drain
from tests.samples import Recorder
from tests.steps import account, outbox_renamed, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


@pytest.fixture
def message(database, configure):
    """Of two events, as it is published; they are in no table."""
    configure("outbox", recorder={})
    track("one", "two")
    row = Envelope.objects.get()
    Envelope.objects.all().delete()
    return {
        "version": row.version,
        "envelope_id": str(row.envelope_id),
        "lanes": row.lanes,
        "n": row.n,
        "payload": bytes(row.payload).decode(),
        "using": database,
    }


def test_a_message_becomes_the_envelope_that_it_was(database, message):
    assert ingest(**message) is True

    drain(host.registry.runners, database)
    assert [event.name for event in Recorder.seen["recorder"]] == ["one", "two"]
    assert account(database, "recorder") == {"accepted": 2, "delivered": 2}


def test_a_newer_version_waits_for_workers_that_know_it(database, message):
    assert ingest(**{**message, "version": VERSION + 1}) is True

    drain(host.registry.runners, database)
    assert Recorder.seen == {}
    assert Envelope.objects.get().version == VERSION + 1


def test_a_database_that_refuses_is_the_caller_s_matter(database, message):
    with outbox_renamed(database), pytest.raises(DatabaseError):
        ingest(**message)

    assert ingest(**message) is True


def test_an_argument_of_a_newer_version_is_the_caller_s_matter(message):
    with pytest.raises(TypeError):
        ingest(**message, colour="blue")


@pytest.mark.parametrize(
    "wrong",
    [
        {"envelope_id": "no id"},
        {"envelope_id": 7},
        {"envelope_id": None},
        {"version": "one"},
        {"version": 0},
        {"version": 2**40},
        {"version": True},
        {"n": "2"},
        {"n": -2},
        {"n": 2**40},
        {"payload": None},
        {"payload": ["one", "two"]},
        {"payload": "[\ud800]"},
    ],
    ids=lambda wrong: ascii(wrong),
)
def test_a_damaged_message_becomes_a_dead_letter_once(database, message, wrong, caplog):
    assert ingest(**{**message, **wrong}) is True
    assert ingest(**{**message, **wrong}) is True

    drain(host.registry.runners, database)
    assert Recorder.seen == {}
    letter = Delivery.objects.get()
    assert (letter.lane, letter.state) == ("recorder", "dead")
    assert "unreadable" in letter.reason
    assert "damaged" in caplog.text


@pytest.mark.parametrize("payload", ["", "{}", "[1", "[]", "\0"], ids=ascii)
def test_a_payload_that_is_none_becomes_a_dead_letter(database, message, payload):
    assert ingest(**{**message, "payload": payload}) is True
    drain(host.registry.runners, database)

    assert Recorder.seen == {}
    assert Delivery.objects.get().state == "dead"


@pytest.mark.parametrize("lanes", [None, "", 7, ["recorder"], "rec\0rder", "\ud800"], ids=ascii)
def test_a_message_for_nobody_is_counted_as_lost_and_not_tried_again(message, lanes, caplog):
    lost = host.counts.get("lost", 0)

    assert ingest(**{**message, "lanes": lanes}) is False

    assert Envelope.objects.count() == 0
    assert host.counts["lost"] == lost + 2
    assert "lost" in caplog.text


def test_a_message_without_anything_is_not_tried_again(configure, database):
    configure("outbox", recorder={})

    assert ingest() is False


def test_a_database_that_is_not_here_is_replaced_by_the_router_s(database, message, caplog):
    assert ingest(**{**message, "using": "elsewhere"}) is True
    assert ingest(**{**message, "envelope_id": str(uuid.uuid4()), "using": None}) is True

    assert Envelope.objects.count() == 2
    assert "elsewhere" in caplog.text


def test_a_message_that_comes_again_is_stored_once(any_database, configure):
    configure("outbox", recorder={})
    named = {"version": VERSION, "envelope_id": str(uuid.uuid4()), "lanes": "recorder", "n": 1, "using": any_database}

    assert ingest(payload="[1]", **named) is True
    assert ingest(payload="[2]", **named) is True

    assert bytes(Envelope.objects.get().payload) == b"[1]"
