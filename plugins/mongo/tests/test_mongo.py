"""The plugin against a server: stored once, chosen collections, refusals, a server that is away."""

from __future__ import annotations

import datetime as dt
import warnings
from collections import Counter

import pymongo
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo import errors, uri_parser

from pluginhost import Event, PartialFailure, PermanentError, RetryableError, host
from pluginhost.delivery import accounts
from pluginhost.exceptions import ConfigurationError
from pluginhost.models import Delivery
from pluginhost.workers.worker import drain
from pluginhost_mongo import client as mongo_client
from pluginhost_mongo.plugin import PLAIN_URI
from tests.servers import free_port

pytestmark = [pytest.mark.mongo, pytest.mark.django_db(databases="__all__", transaction=True)]


@pytest.fixture
def store(mongodb):
    """An empty database on the server."""
    with pymongo.MongoClient(mongodb, tz_aware=True) as connected:
        connected.drop_database("plugin")
        yield connected["plugin"]


@pytest.fixture
def enabled(configure, mongodb, store):
    configure("outbox", mongo={"URI": mongodb, "DATABASE": "plugin"})


def run(database: str) -> None:
    drain(host.registry.runners, database)


def test_events_become_documents(database, enabled, store):
    noon = dt.datetime(2026, 11, 21, 12, 0, 0, 123000, tzinfo=dt.UTC)
    message_id = host.track(None, "order paid", {"plan": "pro", "a.b": [1, None]}, user_id=7, value=9.5, timestamp=noon)

    run(database)

    assert list(store["events"].find()) == [
        {
            "_id": message_id,
            "type": "track",
            "name": "order paid",
            "timestamp": noon,
            "properties": {"plan": "pro", "a.b": [1, None]},
            "user_id": "7",
            "value": 9.5,
        }
    ]


def test_all_types_of_event_are_stored(database, enabled, store):
    host.track(None, "tracked", user_id=1)
    host.page(None, "Home", user_id=1)
    host.identify(None, {"plan": "pro"}, user_id=1)
    host.alias(None, "a1", 1)

    run(database)

    found = {document["type"]: document for document in store["events"].find()}
    assert set(found) == {"track", "page", "identify", "alias"}
    assert found["identify"]["properties"] == {"plan": "pro"}
    assert found["alias"]["previous_id"] == "a1"


def test_the_same_thing_tracked_twice_is_one_document(database, enabled, store):
    for _ in range(3):
        host.track(None, "order paid", key="order:42")
    with host.batch():
        host.track(None, "order paid", key="order:42")
        host.track(None, "order paid", key="order:42")

    run(database)

    assert store["events"].count_documents({}) == 1
    assert accounts.read(database)["mongo"]["delivered"] == 5


def test_a_redelivered_batch_changes_nothing(enabled, store):
    events = [
        Event(type="track", name=f"event {n}", message_id=str(n), timestamp=dt.datetime.now(dt.UTC)) for n in range(50)
    ]
    runner = host.registry.runners["mongo"]

    assert runner.run(events[:30]).delivered == 30
    assert runner.run(events).delivered == 50

    assert Counter(document["_id"] for document in store["events"].find()) == Counter(str(n) for n in range(50))


def test_a_collection_for_one_event_and_by_option(database, configure, mongodb, store):
    configure("outbox", mongo={"URI": mongodb, "DATABASE": "plugin", "COLLECTION": "everything"})
    with host.batch():
        host.track(None, "ordinary")
        host.track(None, "sign-up", plugins={"mongo": {"collection": "signups"}})
        host.track(None, "impossible", plugins={"mongo": {"collection": "a$b"}})

    run(database)

    assert [document["name"] for document in store["everything"].find()] == ["ordinary"]
    assert [document["name"] for document in store["signups"].find()] == ["sign-up"]
    letter = Delivery.objects.get()
    assert (letter.state, letter.event_name) == ("dead", "impossible")


def test_a_server_that_is_away_defers_and_gets_everything_later(database, configure, mongodb, store):
    away = f"mongodb://127.0.0.1:{free_port()}/"
    configure("outbox", mongo={"URI": away, "DATABASE": "plugin", "TIMEOUT": 0.5})
    host.track(None, "patient")

    run(database)

    waiting = Delivery.objects.get()
    assert waiting.state == "waiting"
    assert waiting.reason.startswith("RetryableError: ServerSelectionTimeoutError")

    configure("outbox", mongo={"URI": mongodb, "DATABASE": "plugin"})
    Delivery.objects.update(due_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    run(database)
    assert [document["name"] for document in store["events"].find()] == ["patient"]


class Refusing:
    """The edge of the network: a collection whose server answers with this error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, name: str) -> Refusing:
        return self

    def insert_many(self, documents, ordered):
        assert ordered is False
        raise self.error


def bulk_error(*failures: dict, confirmed: bool = True) -> errors.BulkWriteError:
    return errors.BulkWriteError(
        {
            "writeErrors": [{"index": 0, "op": {"_id": "m"}, **failure} for failure in failures],
            "writeConcernErrors": [] if confirmed else [{"code": 64, "errmsg": "waiting for replication timed out"}],
        }
    )


def insert(error: Exception) -> None:
    mongo_client.insert(Refusing(error), "plugin", "events", [{"_id": "m"}])


def test_an_existing_document_is_success():
    again = {"code": 11000, "keyPattern": {"_id": 1}, "errmsg": "E11000"}
    refused = {"code": 121, "errmsg": "Document failed validation", "op": {"_id": "other"}}

    insert(bulk_error(again))
    with pytest.raises(PartialFailure) as caught:
        insert(bulk_error(again, refused))
    assert list(caught.value.errors) == ["other"]


def test_a_unique_index_of_the_project_s_own_is_a_refusal():
    with pytest.raises(PartialFailure) as caught:
        insert(bulk_error({"code": 11000, "keyPattern": {"user_id": 1}, "errmsg": "E11000 dup key user_id"}))

    assert str(caught.value.errors["m"]) == "11000: E11000 dup key user_id"
    assert isinstance(caught.value.errors["m"], PermanentError)


def test_a_document_that_the_server_s_validator_refuses():
    with pytest.raises(PartialFailure) as caught:
        insert(bulk_error({"code": 121, "errmsg": "Document failed validation"}))

    assert isinstance(caught.value.errors["m"], PermanentError)


def test_an_insert_that_was_not_confirmed_is_repeated():
    with pytest.raises(RetryableError, match="waiting for replication timed out"):
        insert(bulk_error(confirmed=False))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.AutoReconnect("connection reset"), RetryableError),
        (errors.NetworkTimeout("timed out"), RetryableError),
        (errors.OperationFailure("auth failed", 18), RetryableError),
        (errors.OperationFailure("invalid namespace", 73), PermanentError),
        (errors.DocumentTooLarge("17 MB"), PermanentError),
        (errors.InvalidName("collection names cannot be empty"), PermanentError),
    ],
)
def test_other_errors_in_the_host_s_words(error, expected):
    with pytest.raises(expected):
        insert(error)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"URI": "http://localhost", "DATABASE": "x"}, "URI is not one of MongoDB"),
        ({"URI": "mongodb://localhost/", "DATABASE": "a b"}, "DATABASE"),
        ({"URI": "mongodb://localhost/", "DATABASE": "x", "COLLECTION": "$"}, "COLLECTION"),
        ({"URI": "mongodb://localhost/"}, "the option DATABASE is missing"),
        ({"URI": "mongodb://ann:hush-hush@local host:x/", "DATABASE": "x"}, "URI is not one of MongoDB"),
        ({"URI": "mongodb://localhost:65536/", "DATABASE": "x"}, "Port"),
        ({"URI": "mongodb://localhost/?retryWrites=perhaps", "DATABASE": "x"}, "retrywrites"),
        ({"URI": "mongodb://localhost/?unheardOf=1", "DATABASE": "x"}, "unheardof"),
    ],
)
def test_wrong_options_are_refused_at_the_start(configure, options, problem):
    configure("memory", mongo=options)

    with pytest.raises(ConfigurationError) as caught:
        host.registry  # noqa: B018

    assert problem in str(caught.value)
    assert "hush-hush" not in str(caught.value)


@given(st.from_regex(PLAIN_URI, fullmatch=True))
def test_a_uri_that_pymongo_is_not_asked_about_is_right(uri):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an option that is there twice
        assert uri_parser.parse_uri(uri, validate=True, warn=False)["nodelist"]


def test_time_outs_follow_the_lane_unless_the_uri_says_otherwise():
    with (
        mongo_client.connect("mongodb://localhost/", 3.0) as ours,
        mongo_client.connect("mongodb://localhost/?timeoutMS=700", 3.0) as given,
    ):
        assert ours.options.timeout == 3.0
        assert given.options.timeout == 0.7
