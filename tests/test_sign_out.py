"""At a log-out the browser learns that somebody else may sit there now, and the anonymous id ends."""

from __future__ import annotations

import time

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import logout
from django.contrib.auth.models import User
from django.test import AsyncClient, Client, RequestFactory

from pluginhost.delivery import memory
from pluginhost.html import SIGNED_OUT_COOKIE
from tests.samples import told

pytestmark = pytest.mark.django_db
MARK = SIGNED_OUT_COOKIE


@pytest.fixture
def ada():
    client = Client()
    client.force_login(User.objects.create_user("ada"))
    return client


def test_a_log_out_marks_the_browser(configure, ada, settings):
    settings.SESSION_COOKIE_DOMAIN = "example.com"
    configure(nametag={}, ANONYMOUS_COOKIE_AGE=1000)
    before = time.time_ns() // 1_000_000
    cookie = ada.post("/pages/sign-out/", secure=True).cookies[MARK]

    assert before <= int(cookie.value) <= time.time_ns() // 1_000_000
    assert {name: cookie[name] for name in ("max-age", "path", "domain", "secure", "samesite", "httponly")} == {
        "max-age": 1000,
        "path": "/",
        "domain": "example.com",
        "secure": True,
        "samesite": "Lax",
        "httponly": "",  # the snippets have to read it, on cached pages too
    }


def test_over_http(configure, ada):
    configure(nametag={})
    cookie = ada.post("/pages/sign-out/").cookies[MARK]
    assert (cookie["secure"], cookie["domain"]) == ("", "")


def test_two_log_outs_are_two(configure, ada, monkeypatch):
    configure(nametag={})
    for moment in (5, 6):
        monkeypatch.setattr("pluginhost.identity.time.time_ns", lambda moment=moment: moment * 1_000_000)
        assert ada.post("/pages/sign-out/").cookies[MARK].value == str(moment)
        ada.force_login(User.objects.create_user(f"user{moment}"))


def test_a_page_that_logs_out_is_for_one_browser(configure, ada):
    configure(nametag={})
    response = ada.get("/pages/sign-out/")
    assert response.headers["Cache-Control"] == "private"


@pytest.mark.parametrize(
    ("plugins", "marked"),
    [
        ({"nametag": {}}, True),
        ({"tag": {}, "nametag": {}}, True),
        ({"tag": {}}, False),
        ({"recorder": {}}, False),
        ({}, False),
        ({"nametag": {}, "ENABLED": False}, False),
    ],
    ids=str,
)
def test_only_where_a_snippet_names_visitors(configure, ada, plugins, marked):
    configure(**plugins)
    response = ada.post("/pages/sign-out/")
    assert (MARK in response.cookies) is marked
    assert ("Cache-Control" in response.headers) is marked


@pytest.mark.parametrize("path", ["/", "/pages/plain/", "/pages/json/", "/pages/streamed/"])
def test_only_at_a_log_out(configure, ada, path):
    configure(nametag={})
    assert MARK not in ada.get(path).cookies


def test_a_log_in_is_none(configure, client):
    User.objects.create_user("ada", password="secret")
    configure(nametag={})
    assert MARK not in client.get("/sign-in/").cookies


@pytest.mark.parametrize("cookies", [{}, {"sessionid": "x" * 32}], ids=str)
def test_a_log_out_of_nobody_is_none(configure, client, cookies):
    client.cookies.load(cookies)
    configure(nametag={}, ANONYMOUS_COOKIE="visitor")
    client.cookies["visitor"] = "0" * 32
    response = client.post("/pages/sign-out/")
    assert not {MARK, "visitor"} & set(response.cookies)


def test_an_async_log_out(configure):
    configure(nametag={}, ANONYMOUS_COOKIE="visitor")
    client = AsyncClient()
    async_to_sync(client.aforce_login)(User.objects.create_user("ada"))
    client.cookies["visitor"] = "0" * 32
    response = async_to_sync(client.post)("/pages/asign-out/")
    assert response.cookies[MARK].value.isdigit()
    assert response.cookies["visitor"]["max-age"] == 0


def test_a_log_out_by_a_wrapped_request(configure, ada):
    """As a view of Django REST framework does it."""
    configure(nametag={})
    assert MARK in ada.post("/pages/api/sign-out/").cookies


def test_a_log_out_without_a_request(configure, ada):
    """``user_logged_out`` may be sent by hand."""
    from django.contrib.auth.signals import user_logged_out

    configure(nametag={})
    answers = user_logged_out.send_robust(sender=User, request=None, user=User(pk=5))
    assert not [error for _, error in answers if error is not None]


def test_a_log_out_outside_of_the_middleware(configure):
    configure(nametag={})
    request = RequestFactory().get("/")
    request.user = User(pk=5)
    request.session = Client().session
    logout(request)  # nobody is there to set a cookie, and nothing fails
    assert request.user.is_anonymous


@pytest.mark.django_db(transaction=True)
def test_an_event_before_the_log_out_is_still_his(configure, ada):
    """Outside of a transaction it waits for the end of the request, when nobody is logged in any more."""
    configure(recorder={})
    ada.post("/pages/sign-out/?track&user")
    assert [(event.name, event.user_id) for event in memory.events] == [
        ("signed out", str(User.objects.get().pk)),
        ("after", None),
    ]


# --- the host's own anonymous id ---


def test_the_anonymous_id_ends_and_the_next_visitor_gets_a_new_one(configure, ada):
    configure(recorder={}, ANONYMOUS_COOKIE="visitor")
    first = ada.get("/").cookies["visitor"].value
    gone = ada.post("/pages/sign-out/").cookies["visitor"]
    assert (gone.value, gone["max-age"], gone["path"], gone["samesite"]) == ("", 0, "/", "Lax")

    second = ada.get("/").cookies["visitor"].value
    assert second != first
    assert [event.anonymous_id for event in memory.events] == [first, second]


def test_an_id_that_a_log_out_makes_is_nobody_elses(configure, ada):
    """The event of the log-out carries it; who comes next must not have the same."""
    configure(recorder={}, ANONYMOUS_COOKIE="visitor")
    response = ada.post("/pages/sign-out/?track")
    assert "visitor" not in response.cookies
    ada.get("/")
    signed_out, next_one = memory.events[0].anonymous_id, memory.events[-1].anonymous_id
    assert len(signed_out) == len(next_one) == 32
    assert signed_out != next_one


def test_without_that_cookie_none_is_deleted(configure, ada):
    configure(recorder={}, ANONYMOUS_COOKIE="visitor")
    assert "visitor" not in ada.post("/pages/sign-out/").cookies
    configure(recorder={})
    ada.cookies["visitor"] = "0" * 32
    assert "visitor" not in ada.post("/pages/sign-out/").cookies


def test_what_waited_for_a_page_ends_too(configure, ada):
    """It was the other one's."""
    configure(nametag={})
    ada.post("/pages/form/", {"name": "paid"})
    ada.post("/pages/sign-out/")
    assert [s["events"] for s in told(ada.get("/pages/plain/").text)] == [[], []]


def test_a_page_that_logs_out_names_nobody(configure, ada):
    configure(nametag={})
    response = ada.get("/pages/sign-out/?page")
    assert [s["identity"] for s in told(response.text)] == [None, None]
    assert MARK in response.cookies


@pytest.mark.parametrize("out", ["", "&out=1"], ids=["over", "after a log-out"])
def test_a_log_in_over_another_one_is_a_log_out_too(configure, ada, out):
    """Django flushes the first user's session then, and sends no signal of a log-out."""
    configure(nametag={}, recorder={}, ANONYMOUS_COOKIE="own")
    ada.get("/who/")
    own = ada.cookies["own"].value
    bob = User.objects.create_user("bob")

    response = ada.get(f"/pages/sign-in-over/?as=bob{out}")

    assert MARK in response.cookies
    assert response.cookies["own"].value == ""
    before, after = list(memory.events)[-2:]
    assert (before.name, before.user_id, before.anonymous_id) == ("before", None, own)
    assert (after.name, after.user_id, after.anonymous_id) == ("after", str(bob.pk), None)
    ada.get("/who/")
    assert memory.events[-1].anonymous_id not in (own, None)


def test_a_log_in_of_an_anonymous_visitor_is_none(configure, client):
    configure(nametag={}, recorder={}, ANONYMOUS_COOKIE="own")
    User.objects.create_user("bob")
    own = client.get("/who/").cookies["own"].value
    response = client.get("/pages/sign-in-over/?as=bob")
    assert MARK not in response.cookies
    assert {event.anonymous_id for event in memory.events} == {own}
    response = client.get("/pages/sign-in-over/?as=bob")  # once more, as the same
    assert MARK not in response.cookies
    assert client.cookies["own"].value == own


def test_a_log_in_without_a_session_is_none(configure, client):
    """As with tokens: some packages send Django's signal, and make no session."""
    configure(nametag={}, recorder={}, ANONYMOUS_COOKIE="own")
    ada = User.objects.create_user("ada")
    own = client.get("/who/").cookies["own"].value
    response = client.get(f"/pages/sign-in-by-token/?as={ada.username}")
    assert MARK not in response.cookies
    assert "own" not in response.cookies
    assert (memory.events[-1].user_id, memory.events[-1].anonymous_id) == (str(ada.pk), own)
