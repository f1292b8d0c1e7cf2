"""``host.track_client`` in asynchronous views, and for pages whose headers go out before they are rendered."""

from __future__ import annotations

import logging

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import AsyncClient, RequestFactory

from pluginhost import AsyncContextError, InvalidEvent
from tests.pages import names, waiting
from tests.samples import content, told

pytestmark = pytest.mark.django_db
rf = RequestFactory()


# --- asynchronous ---


@pytest.fixture
def aclient(settings):
    client = AsyncClient()
    return async_to_sync(client.get), async_to_sync(client.post)


def test_async_twins(configure, aclient, sessions):
    configure(tag={})
    get, post = aclient
    post("/pages/form/", {"name": "paid"})
    assert names(get("/pages/in-thread/?name=new")) == ["paid", "new"]
    assert names(get("/pages/in-thread/")) == []


def test_a_page_rendered_in_the_event_loop(configure, aclient, caplog):
    """The database can't be asked there: the page is unharmed, and the event waits for the next one."""
    configure(tag={}, nametag={})
    get, post = aclient
    post("/pages/form/", {"name": "paid"})
    response = get("/pages/in-loop/")
    assert response.status_code == 200
    assert [said["events"] for said in told(response.text)] == [[]] * 4
    assert "a page is rendered without the visitor and without waiting events: use await host.arender()" in caplog.text
    assert names(get("/pages/in-thread/")) == ["paid"]


def test_a_page_rendered_in_the_event_loop_from_a_cookie(configure, aclient, settings):
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    configure(tag={})
    get, post = aclient
    post("/pages/form/", {"name": "paid"})
    assert names(get("/pages/in-loop/")) == ["paid"]
    assert names(get("/pages/in-loop/")) == []


def test_a_synchronous_call_in_the_event_loop(configure, aclient, caplog):
    configure(tag={})
    get, post = aclient
    post("/pages/form/", {"name": "paid"})
    with pytest.raises(AsyncContextError, match="use atrack_client"):
        get("/pages/tracked-in-loop/")

    configure(tag={}, STRICT=False)
    assert get("/pages/tracked-in-loop/").text == "done"
    assert "use atrack_client" in caplog.text
    assert names(get("/pages/in-thread/")) == ["paid"]


# --- streamed pages ---


def streamed_names(response):
    return [[event[1] for event in said["events"]] for said in told(content(response)) if said["alias"] == "tag"]


def test_a_streamed_page_empties_the_session_though_its_headers_have_gone(configure, client):
    configure(tag={})
    client.post("/pages/form/", {"name": "paid"})
    assert streamed_names(client.get("/pages/streamed/?name=now")) == [["paid", "now"], []]
    assert not waiting(client)
    assert streamed_names(client.get("/pages/streamed/")) == [[], []]


def test_the_same_in_async_code(configure, aclient):
    configure(tag={})
    get, post = aclient
    post("/pages/form/", {"name": "paid"})
    assert streamed_names(get("/pages/astreamed/")) == [["paid"], []]
    assert streamed_names(get("/pages/astreamed/")) == [[], []]


def test_a_streamed_page_rendered_in_the_event_loop(configure, aclient, caplog):
    configure(tag={})
    get, post = aclient
    post("/pages/form/", {"name": "paid"})
    assert streamed_names(get("/pages/streamed-in-loop/")) == [[], []]
    assert names(get("/pages/in-thread/")) == ["paid"]


def test_a_session_in_a_cookie_cannot_be_emptied_late(configure, client, settings):
    """So what waits in it goes on waiting for a page whose headers are still to come."""
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    configure(tag={})
    client.post("/pages/form/", {"name": "paid"})
    assert streamed_names(client.get("/pages/streamed/")) == [[], []]
    with pytest.raises(InvalidEvent, match="its session has gone out in a cookie: track earlier"):
        content(client.get("/pages/streamed/?late=during"))
    assert names(client.get("/pages/plain/")) == ["paid"]
    assert names(client.get("/pages/plain/")) == []


def test_what_is_tracked_while_a_page_streams(configure, client):
    configure(tag={})
    client.post("/pages/form/", {"name": "paid"})
    response = client.get("/pages/streamed/?late=during&after=after")
    assert streamed_names(response) == [["paid", "during"], []]
    assert names(client.get("/pages/plain/")) == ["after"]


def test_what_an_anonymous_visitor_does_while_a_page_streams(configure, client, sessions):
    configure(tag={})
    assert streamed_names(client.get("/pages/streamed/?late=during")) == [["during"], []]
    assert not Session.objects.exists()


@pytest.mark.parametrize("type_", ["application/xhtml+xml", "text/vnd.turbo-stream.html"])
def test_a_stream_whose_headers_foresee_no_page_gets_no_snippet(configure, client, caplog, type_):
    configure(tag={}, nametag={})
    client.force_login(User.objects.create_user("ada"))
    client.post("/pages/form/", {"name": "paid"})
    assert told(content(client.get("/pages/streamed/", {"type": type_}))) == []
    assert "the headers of '/pages/streamed/' have gone out, and are none of a page" in caplog.text
    assert names(client.get("/pages/plain/")) == ["paid"]


def test_a_session_that_ended_meanwhile(configure, client, caplog):
    """A log-out in another tab, between the headers and the body."""
    configure(tag={})
    client.post("/pages/form/", {"name": "paid"})
    caplog.set_level(logging.ERROR)
    response = client.get("/pages/streamed/?name=now")
    Session.objects.all().delete()
    assert streamed_names(response) == [[], []]
    assert not Session.objects.exists()
