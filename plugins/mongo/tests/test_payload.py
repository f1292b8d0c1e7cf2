"""From an event to a document, with literals."""

from __future__ import annotations

import datetime as dt

import pytest

from pluginhost import Context, Event, PermanentError, Subject
from pluginhost_mongo.payload import collection, document

NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)


def test_a_whole_event():
    event = Event(
        type="track",
        name="order paid",
        message_id="01935f2e-8a00-7000-8000-000000000000",
        timestamp=NOON,
        properties={"items": [{"price": 9.5}], "$odd.key": None},
        user_id="7",
        anonymous_id="a1",
        subject=Subject(model="shop.Order", pk="42"),
        value=9.5,
        context=Context(ip="192.0.2.0", path="/order/"),
        plugins={"mongo": {"collection": "orders"}},
    )

    assert document(event) == {
        "_id": "01935f2e-8a00-7000-8000-000000000000",
        "type": "track",
        "name": "order paid",
        "timestamp": NOON,
        "properties": {"items": [{"price": 9.5}], "$odd.key": None},
        "user_id": "7",
        "anonymous_id": "a1",
        "subject": {"model": "shop.Order", "pk": "42"},
        "value": 9.5,
        "context": {"ip": "192.0.2.0", "path": "/order/"},
    }


def test_what_is_not_known_is_left_out():
    event = Event(type="page", name="/", message_id="m", timestamp=NOON, value=0)

    assert document(event) == {"_id": "m", "type": "page", "name": "/", "timestamp": NOON, "value": 0}


@pytest.mark.parametrize("name", ["signups", "a.b", "ünicode"])
def test_the_collection_that_the_caller_chose(name):
    event = Event(type="track", name="x", message_id="m", timestamp=NOON, plugins={"store": {"collection": name}})

    assert collection(event, "store", "events") == name
    assert collection(event, "another", "events") == "events"


@pytest.mark.parametrize("name", ["", "a$b", "system.users", "nul\0", 7, None, ["a"], "x" * 201])
def test_a_collection_that_is_none_is_refused(name):
    event = Event(type="track", name="x", message_id="m", timestamp=NOON, plugins={"mongo": {"collection": name}})

    with pytest.raises(PermanentError, match="is no name for a collection"):
        collection(event, "mongo", "events")
