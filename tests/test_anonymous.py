"""The cookie with an anonymous id: set with the first event that some plugin may have, and never otherwise."""

from __future__ import annotations

import re
from threading import Thread

import pytest
from django.http import HttpResponse
from django.test import Client, RequestFactory

from pluginhost import host
from pluginhost.delivery import memory
from pluginhost.identity import ANONYMOUS_ID
from pluginhost.middleware import TrackerMiddleware
from tests.samples import Filter, Recorder

COOKIE = "visitor"


def test_the_first_event_gives_a_cookie(configure, client):
    configure(recorder={}, ANONYMOUS_COOKIE=COOKIE, ANONYMOUS_COOKIE_AGE=1000)

    response = client.get("/twice/", secure=True)

    cookie = response.cookies[COOKIE]
    assert ANONYMOUS_ID.fullmatch(cookie.value)
    assert [event.anonymous_id for event in memory.events] == [cookie.value] * 2
    assert (cookie["httponly"], cookie["samesite"], cookie["secure"]) == (True, "Lax", True)
    assert (cookie["max-age"], cookie["path"]) == (1000, "/")
    assert response.headers["Vary"] == "Cookie"


def test_over_http_the_cookie_is_not_secure(configure, client):
    configure(recorder={}, ANONYMOUS_COOKIE=COOKIE)
    assert client.get("/").cookies[COOKIE]["secure"] == ""


def test_the_next_request_reuses_the_cookie(configure, client):
    configure(recorder={}, ANONYMOUS_COOKIE=COOKIE)
    first = client.get("/").cookies[COOKIE].value

    response = client.get("/")

    assert COOKIE not in response.cookies
    assert "Vary" not in response.headers
    assert [event.anonymous_id for event in memory.events] == [first, first]


@pytest.mark.parametrize("garbage", ["", "x", "A" * 32, "0" * 33, "<script>", "0" * 31 + "é"])
def test_a_cookie_that_the_host_did_not_set_is_replaced(configure, client, garbage):
    configure(recorder={}, ANONYMOUS_COOKIE=COOKIE)
    client.cookies[COOKIE] = garbage
    value = client.get("/").cookies[COOKIE].value
    assert value != garbage
    assert memory.events[-1].anonymous_id == value


def test_a_plugin_without_personal_data_marks_no_browser(configure, client, monkeypatch):
    configure(recorder={}, ANONYMOUS_COOKIE=COOKIE)
    monkeypatch.setattr(Recorder, "personal_data", False)

    assert COOKIE not in client.get("/").cookies
    assert [event.anonymous_id for event in memory.events] == [None]


def test_a_site_can_ask_for_the_id(configure):
    configure(recorder={}, ANONYMOUS_COOKIE=COOKIE)
    request = RequestFactory().get("/")
    assert host.anonymous_id(request) is None
    request.COOKIES[COOKIE] = "0" * 32
    assert host.anonymous_id(request) == "0" * 32
    host.track(request, "x")
    assert memory.events[-1].anonymous_id == "0" * 32


@pytest.mark.parametrize("source", [None, "GET /", 5, object()], ids=["None", "text", "number", "object"])
def test_what_is_no_request_has_no_id(configure, source):
    configure(recorder={}, ANONYMOUS_COOKIE=COOKIE)
    assert host.anonymous_id(source) is None


@pytest.mark.parametrize("keys", [{"ENABLED": False}, {"filter": {}}], ids=["off", "objection"])
def test_where_nothing_is_tracked_a_request_has_no_id(configure, keys):
    configure(recorder={}, ANONYMOUS_COOKIE=COOKIE, **keys)
    Filter.answer = False
    request = RequestFactory().get("/")
    request.COOKIES[COOKIE] = "0" * 32
    assert host.anonymous_id(request) is None


@pytest.mark.parametrize("answer", [False, frozenset({"marketing"})], ids=str)
def test_no_cookie_without_consent(configure, client, answer):
    configure(filter={}, recorder={}, ANONYMOUS_COOKIE=COOKIE)
    Filter.answer = answer
    response = client.get("/")
    assert not response.cookies
    assert "Vary" not in response.headers
    assert not memory.events


@pytest.mark.django_db
def test_no_cookie_where_nothing_is_tracked(configure, client):
    configure(recorder={}, ANONYMOUS_COOKIE=COOKIE)
    assert not client.get("/page/").cookies


def test_no_cookie_for_an_event_that_is_refused(configure, client, monkeypatch):
    monkeypatch.setattr("pluginhost.door.MAX_BYTES", 10)
    configure(recorder={}, ANONYMOUS_COOKIE=COOKIE, STRICT=False)
    assert not client.get("/twice/").cookies
    assert not memory.events


def test_events_of_several_threads_of_a_request_have_one_id(configure):
    """While one reads the cookies of a provider, another one gives the browser its id."""
    threads = []

    def read(request):
        if not threads:
            threads.append(Thread(target=host.track, args=(request, "second")))
            threads[0].start()
            threads[0].join()

    def view(request):
        host.track(request, "first")
        return HttpResponse()

    configure(cookies={}, ANONYMOUS_COOKIE=COOKIE)
    Recorder.act["cookies.cookie_ids"] = read
    response = TrackerMiddleware(view)(RequestFactory().get("/"))
    ids = {event.name: event.anonymous_id for event in memory.events}
    value = response.cookies[COOKIE].value
    assert ids == {"second": value, "first": value}


def test_no_cookie_unless_the_project_asks_for_it(configure, client):
    configure(recorder={})
    assert not client.get("/").cookies
    assert memory.events[-1].anonymous_id is None


def test_no_id_without_the_middleware_that_sets_the_cookie(configure, client, settings):
    settings.MIDDLEWARE = []
    configure(recorder={}, ANONYMOUS_COOKIE=COOKIE)
    assert not client.get("/").cookies
    assert memory.events[-1].anonymous_id is None

    client.cookies[COOKIE] = "0" * 32
    client.get("/")
    assert memory.events[-1].anonymous_id == "0" * 32


def test_a_given_anonymous_id_is_no_reason_for_a_cookie(configure):
    def view(request):
        host.track(request, "something", anonymous_id="mine")
        return HttpResponse()

    configure(recorder={}, ANONYMOUS_COOKIE=COOKIE)
    response = TrackerMiddleware(view)(RequestFactory().get("/"))
    assert not response.cookies
    assert memory.events[-1].anonymous_id == "mine"


def test_without_a_request_there_is_no_visitor(configure):
    configure(recorder={}, ANONYMOUS_COOKIE=COOKIE)
    assert host.track(None, "something")
    assert memory.events[-1].anonymous_id is None


def test_two_visitors_have_two_ids(configure):
    configure(recorder={}, ANONYMOUS_COOKIE=COOKIE)
    ids = {Client().get("/").cookies[COOKIE].value for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", value) for value in ids)
