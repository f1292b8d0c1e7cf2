"""A person is forgotten, and an event is found: in every collection that events may be in."""

from __future__ import annotations

import datetime as dt
import io

import pymongo
import pytest
from django.core.management import call_command

from pluginhost import Person, RetryableError, host
from pluginhost.events import new_message_id
from pluginhost.workers.worker import drain
from pluginhost_mongo import client as mongo_client
from tests.servers import free_port

pytestmark = [pytest.mark.mongo, pytest.mark.django_db(databases="__all__", transaction=True)]

ADA = Person(user_ids=("ada", "ada@example.com"), anonymous_ids=("v",))


@pytest.fixture
def store(mongodb):
    """An empty database on the server."""
    with pymongo.MongoClient(mongodb, tz_aware=True) as connected:
        connected.drop_database("plugin")
        yield connected["plugin"]


@pytest.fixture
def enabled(configure, mongodb, store):
    configure("inline", mongo={"URI": mongodb, "DATABASE": "plugin"})


def forget(person=ADA) -> str:
    return host.registry.runners["mongo"].forget(person)


def names(collection) -> list[str]:
    return sorted(document["name"] for document in collection.find())


def test_documents_of_all_ids_are_deleted_and_no_others(enabled, store):
    host.track(None, "by user", user_id="ada")
    host.track(None, "by e-mail", user_id="ada@example.com", anonymous_id="w")
    host.track(None, "by browser", anonymous_id="v")
    host.alias(None, "v", "bea")
    host.alias(None, "ada", "bea")
    host.track(None, "another's", user_id="bea", anonymous_id="w")
    host.track(None, "a browser called ada", anonymous_id="ada")
    host.track(None, "nobody's")
    assert forget() == "5 documents were deleted (events 5)."
    assert names(store["events"]) == ["a browser called ada", "another's", "nobody's"]
    assert forget() == "0 documents were deleted."


def test_collections_that_callers_chose_are_searched_too(enabled, store):
    host.track(None, "usual", user_id="ada")
    host.track(None, "chosen", user_id="ada", plugins={"mongo": {"collection": "signups"}})
    host.track(None, "another's", user_id="bea", plugins={"mongo": {"collection": "signups"}})
    assert forget() == "2 documents were deleted (events 1, signups 1)."
    assert names(store["signups"]) == ["another's"]


def test_documents_of_others_make_stay(enabled, store):
    """The database may be the site's own."""
    now = dt.datetime.now(dt.UTC)
    whole = {"_id": new_message_id(), "type": "track", "name": "x", "timestamp": now, "user_id": "ada"}
    others = [
        {"user_id": "ada", "text": "a comment"},
        {**whole, "_id": "ada"},
        {**whole, "_id": new_message_id(), "type": "order"},
        {**whole, "_id": new_message_id(), "timestamp": "yesterday"},
        {**whole, "_id": new_message_id(), "name": 3},
    ]
    store["comments"].insert_many([*others, whole])
    assert forget() == "1 document was deleted (comments 1)."
    assert store["comments"].count_documents({}) == len(others)


def test_another_who_is_the_same_to_a_collation_stays(enabled, store):
    store.create_collection("events", collation={"locale": "en", "strength": 1})
    for user_id in ("ada", "Ada", "adá"):
        host.track(None, user_id, user_id=user_id)
    assert forget() == "1 document was deleted (events 1)."
    assert names(store["events"]) == ["Ada", "adá"]


def test_somebody_without_ids_is_nobody(enabled, store):
    host.track(None, "nobody's")
    assert forget(Person(user_ids=("",), anonymous_ids=("",))) == "0 documents were deleted."


def test_a_server_that_is_away_fails(configure):
    away = f"mongodb://127.0.0.1:{free_port()}/"
    configure("inline", mongo={"URI": away, "DATABASE": "plugin", "TIMEOUT": 0.3})
    with pytest.raises(RetryableError):
        forget()
    runner = host.registry.runners["mongo"]
    with pytest.raises(RetryableError):
        runner.plugin.explain(new_message_id())
    runner.close()


def test_the_command_forgets(database, configure, mongodb, store):
    configure("outbox", mongo={"URI": mongodb, "DATABASE": "plugin"})
    host.track(None, "delivered", user_id="ada")
    drain(host.registry.runners, database)
    host.track(None, "waits", user_id="ada")
    output = io.StringIO()
    call_command("pluginhost", "forget", "--user-id", "ada", "--no-input", stdout=output)
    assert output.getvalue().splitlines() == [
        "outbox: erased 1 event (envelopes 1, chunks 0, waiting 0, dead 0)",
        "mongo: 1 document was deleted (events 1).",
    ]
    drain(host.registry.runners, database)
    assert names(store["events"]) == []


def test_an_event_is_found_wherever_it_is(enabled, store):
    usual = host.track(None, "usual")
    chosen = host.track(None, "chosen", plugins={"mongo": {"collection": "signups"}})
    explain = host.registry.runners["mongo"].plugin.explain
    assert explain(usual) == "The database 'plugin' has it, in the collection 'events'."
    assert explain(chosen) == "The database 'plugin' has it, in the collection 'signups'."
    assert explain(new_message_id()) is None


def test_views_and_the_servers_own_collections_are_left_alone():
    class Database:
        def list_collections(self, **options):
            assert options == {"nameOnly": True, "authorizedCollections": True}
            return [
                {"name": "b", "type": "collection"},
                {"name": "view", "type": "view"},
                {"name": "system.profile", "type": "collection"},
                {"name": "events", "type": "timeseries"},
                {"name": "a"},
            ]

    assert mongo_client._collections({"plugin": Database()}, "plugin", "events") == ["events", "a", "b"]
