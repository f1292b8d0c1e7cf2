"""Ids that the cookies of providers give a browser: read once a request, believed never."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import RequestFactory

from pluginhost import CookieIds, host
from pluginhost.delivery import memory
from pluginhost.workers.worker import drain
from pluginhost_mongo.payload import document
from tests.samples import Filter, Recorder

transactional = pytest.mark.django_db(databases="__all__", transaction=True)
OWN = "0" * 32


def request(**cookies):
    made = RequestFactory().get("/")
    made.COOKIES.update(cookies)
    return made


def ids():
    event = memory.events[-1]
    return event.anonymous_id, event.visitor_ids


@pytest.mark.parametrize(
    ("given", "cookies", "keys", "anonymous_id"),
    [
        ("explicit", {"provider": "theirs", "own": OWN}, {"ANONYMOUS_COOKIE": "own"}, "explicit"),
        (None, {"provider": "theirs", "own": OWN}, {"ANONYMOUS_COOKIE": "own"}, OWN),
        (None, {"provider": "theirs", "own": "garbage"}, {"ANONYMOUS_COOKIE": "own"}, "theirs"),
        (None, {"provider": "theirs", "own": OWN}, {}, "theirs"),
        (None, {"provider": "theirs"}, {}, "theirs"),
        (None, {"provider": ""}, {}, None),
        (None, {}, {}, None),
        ("", {"provider": "theirs"}, {}, "theirs"),
    ],
    ids=str,
)
def test_which_id_an_event_takes(configure, given, cookies, keys, anonymous_id):
    configure(cookies={}, **keys)
    host.track(request(**cookies), "x", anonymous_id=given)
    assert ids() == (anonymous_id, {"cookies": cookies["provider"]} if cookies.get("provider") else {})


def test_the_hosts_own_cookie_comes_first_even_if_it_is_new(configure, client):
    configure(cookies={}, ANONYMOUS_COOKIE="own")
    client.cookies["provider"] = "theirs"
    made = client.get("/").cookies["own"].value
    assert ids() == (made, {"cookies": "theirs"})


def test_a_site_can_ask_for_the_id_that_the_filters_let_through(configure):
    configure(filter={}, cookies={})
    assert host.anonymous_id(request(provider="theirs")) == "theirs"
    Filter.answer = frozenset({"something else"})
    assert host.anonymous_id(request(provider="theirs")) is None


def test_several_providers(configure):
    """The first in the setting that knows an anonymous id gives the event's; each has its own visitor id."""
    configure(recorder={}, visitors={}, second={"PLUGIN": "visitors"}, cookies={})
    Recorder.act["visitors.cookie_ids"] = lambda request: CookieIds(visitor="visitor-visitors")
    Recorder.act["second.cookie_ids"] = lambda request: CookieIds("from second", "visitor-second")
    host.track(request(provider="theirs"), "x")
    assert ids() == (
        "from second",
        {"visitors": "visitor-visitors", "second": "visitor-second", "cookies": "theirs"},
    )


@pytest.mark.parametrize("call", ["track", "page", "identify"])
def test_every_kind_of_event(configure, call):
    configure(cookies={})
    getattr(host, call)(request(provider="theirs"), *(["x"] if call == "track" else []))
    assert ids() == ("theirs", {"cookies": "theirs"})


def test_an_alias_event(configure):
    configure(cookies={})
    host.alias(request(provider="theirs"), "old", 5)
    assert ids() == ("theirs", {"cookies": "theirs"})


@pytest.mark.parametrize("source", [None, User(pk=5)], ids=str)
def test_without_a_request_there_are_no_cookies(configure, source):
    configure(visitors={})
    host.track(source, "x")
    assert ids() == (None, {})


def asked_in(alias, asked):
    Recorder.act[f"{alias}.cookie_ids"] = lambda request: asked.append(alias) or CookieIds("id", "id")


@pytest.fixture
def asked():
    """Who was asked, in the order of the questions."""
    asked = []
    for alias in ("cookies", "visitors", "other"):
        asked_in(alias, asked)
    return asked


def test_each_is_asked_once_a_request(configure, asked):
    configure(cookies={}, visitors={})
    one = request()
    for _ in range(3):
        host.track(one, "x")
    assert asked == ["cookies", "visitors"]
    host.track(request(), "of another request")
    assert len(asked) == 4


def test_only_who_may_have_the_event_is_asked(configure, asked):
    configure(filter={}, cookies={}, visitors={}, other={"PLUGIN": "cookies", "PURPOSE": "marketing"})
    Filter.answer = frozenset({"analytics"})
    host.track(request(), "x", plugins={"visitors": False})
    assert asked == ["cookies"]
    assert ids() == ("id", {"cookies": "id"})


def test_without_consent_no_cookie_is_read(configure, asked):
    configure(filter={}, cookies={}, visitors={})
    Filter.answer = False
    assert host.track(request(), "x") is None
    assert not asked


def test_a_refused_event_reads_no_cookie(configure, asked):
    configure(cookies={}, STRICT=False)
    assert host.track(request(), "x", {"a": object()}) is None
    assert not asked


def test_an_explicit_id_leaves_the_visitor_ids(configure, asked):
    configure(visitors={})
    host.track(request(), "x", anonymous_id="mine")
    assert ids() == ("mine", {"visitors": "id"})


GARBAGE = ["a\0b", "x" * 256, b"bytes", "\udcff", "", 5, True, ["id"], object()]


@pytest.mark.parametrize("which", ["anonymous", "visitor"])
@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda value: repr(value)[:20])
def test_garbage_is_no_id(configure, garbage, which):
    """And it takes nothing else with it."""
    configure(visitors={})
    Recorder.act["visitors.cookie_ids"] = lambda request: CookieIds(
        **{"anonymous": "good", "visitor": "fine", which: garbage}
    )
    assert host.track(request(), "x")
    assert ids() == ((None, {"visitors": "fine"}) if which == "anonymous" else ("good", {}))


@pytest.mark.parametrize("answer", [*GARBAGE, None], ids=lambda value: repr(value)[:20])
def test_an_answer_of_another_kind_gives_none(configure, answer):
    configure(visitors={}, cookies={})
    Recorder.act["visitors.cookie_ids"] = lambda request: answer
    assert host.track(request(provider="theirs"), "x")
    assert ids() == ("theirs", {"cookies": "theirs"})


@pytest.mark.parametrize("longest", ["x" * 255, "é" * 255, " "], ids=len)
def test_what_every_receiver_can_store_is_an_id(configure, longest):
    configure(cookies={})
    host.track(request(provider=longest), "x")
    assert ids() == (longest, {"cookies": longest})


@pytest.mark.parametrize("raw", ["provider=\xff\xfe", "provider=%ED%A0%80", "provider=\x01", 'provider="a\\000b"'])
def test_no_cookie_breaks_a_page(configure, client, raw):
    configure(cookies={}, visitors={})
    assert client.get("/", HTTP_COOKIE=raw).status_code == 200
    assert memory.events


def test_a_plugin_that_raises_gives_none(configure, caplog):
    def fail(request):
        raise LookupError("secret cookie")

    configure(visitors={}, cookies={})
    Recorder.act["visitors.cookie_ids"] = fail
    assert host.track(request(provider="theirs"), "x")
    assert ids() == ("theirs", {"cookies": "theirs"})
    assert "plugin visitors: its cookies could not be read: LookupError" in caplog.text
    assert "secret cookie" not in caplog.text


@transactional
def test_they_arrive_in_the_lane(database, configure):
    configure("outbox", cookies={}, visitors={}, recorder={})
    host.track(request(provider="theirs"), "x")
    drain(host.registry.runners, database)
    for alias, ids in (("cookies", "theirs"), ("visitors", "visitor-visitors"), ("recorder", None)):
        [event] = Recorder.seen[alias]
        assert event.visitor_ids == ({alias: ids} if ids else {})
        assert event.anonymous_id == "theirs"


def test_a_document_does_not_hold_them(configure):
    """They say who is who at a provider, and nothing about what happened."""
    configure(visitors={})
    host.track(request(provider="theirs"), "x")
    event = memory.events[-1]
    assert event.visitor_ids
    assert set(document(event)) == {"_id", "type", "name", "timestamp", "anonymous_id", "context"}


@transactional
def test_each_lane_is_told_its_own_id_only(database, configure):
    configure("outbox", cookies={}, recorder={}, second={"PLUGIN": "cookies"})
    host.track(request(provider="theirs"), "x")
    drain(host.registry.runners, database)
    told = {alias: events[0].visitor_ids for alias, events in Recorder.seen.items()}
    assert told == {"cookies": {"cookies": "theirs"}, "second": {"second": "theirs"}, "recorder": {}}
