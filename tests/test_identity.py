"""Who did it: at no query and no header, unless the project pays for more."""

from __future__ import annotations

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, User
from django.db import connections
from django.test import AsyncClient, Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject

from pluginhost import host
from pluginhost.delivery import memory
from pluginhost.delivery.envelopes import VERSION, unpack
from pluginhost.models import Envelope

transactional = pytest.mark.django_db(databases="__all__", transaction=True)


@pytest.fixture
def ada(database):
    return User.objects.create_user("ada", password="secret")


@pytest.fixture
def signed_in(ada):
    client = Client()
    client.force_login(ada)
    return client


@pytest.fixture
def queries(database):
    """The statements on the chosen database within a block."""
    return lambda: CaptureQueriesContext(connections[database])


def who():
    return [(event.name, event.user_id) for event in memory.events]


def written():
    return [stored.event for row in Envelope.objects.all() for stored in unpack(VERSION, bytes(row.payload))]


@transactional
def test_without_a_session_cookie_tracking_costs_its_insert_alone(configure, client, queries):
    """(measured) Two events under the middleware: one statement, no header, a session that nothing has read."""
    configure("outbox", recorder={})
    with queries() as captured:
        response = client.get("/twice/")
    assert [query["sql"].split()[0] for query in captured] == ["INSERT"]
    assert "Vary" not in response.headers
    assert not response.cookies
    assert not response.wsgi_request.session.accessed
    assert [(event.name, event.user_id) for event in written()] == [("first", None), ("second", None)]
    assert Envelope.objects.count() == 1


@transactional
def test_without_the_middleware_each_event_is_an_insert(configure, client, queries, settings):
    settings.MIDDLEWARE = settings.MIDDLEWARE[1:]
    configure("outbox", recorder={})
    with queries() as captured:
        client.get("/twice/")
    assert [query["sql"].split()[0] for query in captured] == ["INSERT", "INSERT"]


@transactional
def test_a_user_whom_nobody_asked_for_stays_unknown(configure, signed_in, queries):
    """(measured) A session cookie alone: no query, and the answer stays cacheable for everybody."""
    configure(recorder={})
    with queries() as captured:
        response = signed_in.get("/who/")
    assert len(captured) == 0
    assert "Vary" not in response.headers
    assert not response.wsgi_request.session.accessed
    assert who() == [("who", None)]


@transactional
@pytest.mark.parametrize(("view", "statements"), [("/who/?user", 2), ("/who/?session", 1)], ids=["user", "session"])
def test_what_the_view_has_read_is_known_at_no_further_query(configure, ada, signed_in, queries, view, statements):
    configure(recorder={})
    with queries() as captured:
        signed_in.get(view)
    assert len(captured) == statements
    assert who() == [("who", str(ada.pk))]


@transactional
def test_what_is_read_after_the_call_counts_too(configure, ada, signed_in, settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "tests.test_identity.reads_the_user_late"]
    configure(recorder={})
    signed_in.get("/who/")
    assert who() == [("who", str(ada.pk))]


def reads_the_user_late(get_response):
    def middleware(request):
        response = get_response(request)
        bool(request.user.is_authenticated)
        return response

    return middleware


@transactional
def test_a_log_in_between_two_events_names_both(configure, ada, client):
    configure(recorder={})
    assert client.get("/sign-in/").content == b"in"
    assert who() == [("before", str(ada.pk)), ("after", str(ada.pk))]


@transactional
def test_an_anonymous_visitor_with_a_session(configure, client, database):
    session = client.session
    session["anything"] = 1
    session.save()
    configure(recorder={})
    for view in ("/who/", "/who/?session", "/who/?user"):
        client.get(view)
    assert who() == [("who", None)] * 3


@transactional
def test_identity_always_asks(configure, settings, ada, signed_in, client, queries):
    configure(recorder={}, IDENTITY="always")
    signed_in.get("/who/")
    assert who() == [("who", str(ada.pk))]

    settings.MIDDLEWARE = settings.MIDDLEWARE[1:]  # sealed within the view
    with queries() as captured:
        response = client.get("/who/")
    assert len(captured) == 0  # no session cookie: anonymous, free
    assert "Vary" not in response.headers
    assert who()[-1] == ("who", None)


@transactional
def test_in_an_async_view(configure, ada, database):
    configure(recorder={}, IDENTITY="always")
    client = AsyncClient()
    async_to_sync(client.aforce_login)(ada)
    async_to_sync(client.get)("/atracked/")
    assert who() == [("with await", str(ada.pk)), ("without await", str(ada.pk))]


def test_what_is_given_comes_first(configure):
    configure(recorder={})
    request = RequestFactory().get("/")
    request.user = User(pk=5)
    host.track(request, "request")
    host.track(request, "given", user_id="six")
    host.track(User(pk=5), "user")
    host.track(User(pk=5), "both", user_id=6)
    host.track(AnonymousUser(), "anonymous")
    host.track(None, "nobody")
    host.track(None, "id", user_id=7, anonymous_id=8)
    assert dict(who()) == {
        "request": "5",
        "given": "six",
        "user": "5",
        "both": "6",
        "anonymous": None,
        "nobody": None,
        "id": "7",
    }
    assert memory.events[-1].anonymous_id == "8"


def test_users_that_are_known_by_other_ways(configure):
    configure(recorder={})
    request = RequestFactory().get("/")
    request._acached_user = User(pk=5)
    host.track(request, "resolved by auser")

    request = RequestFactory().get("/")
    request.user = SimpleLazyObject(lambda: User(pk=6))
    host.track(request, "lazy")
    bool(request.user)
    host.track(request, "no longer lazy")
    assert who() == [("resolved by auser", "5"), ("lazy", None), ("no longer lazy", "6")]


def test_a_site_without_sessions(configure, client, settings):
    settings.MIDDLEWARE = settings.MIDDLEWARE[:1]
    client.cookies["sessionid"] = "of another site"
    configure(recorder={}, IDENTITY="always")
    client.get("/")
    assert who() == [("home seen", None)]


def test_users_who_are_no_models(configure):
    class Token:
        is_authenticated = True

    class Guest:
        is_authenticated = False
        pk = 5

    configure(recorder={})
    host.track(Token(), "token")
    host.track(Guest(), "guest")
    assert who() == [("token", None), ("guest", None)]


@pytest.mark.django_db
@pytest.mark.parametrize(("keys", "query"), [({"IDENTITY": "always"}, ""), ({"filter": {}}, "?session=1")])
def test_one_whom_django_does_not_believe_is_nobody(configure, client, keys, query):
    """The session still names the user: deleted meanwhile, or whose password somebody has changed."""
    deleted, changed = (User.objects.create_user(name, password="old") for name in ("ada", "ben"))
    configure(recorder={}, **keys)
    for user in (deleted, changed):
        client.force_login(user)
        if user is deleted:
            user.delete()
        else:
            user.set_password("new")
            user.save()
        client.get(f"/who/{query}")
    assert [event.user_id for event in memory.events] == [None, None]


@transactional
def test_a_lazy_user_within_a_lazy_user_is_not_asked_for(configure, ada, queries):
    request = RequestFactory().get("/")
    inner = SimpleLazyObject(User.objects.get)
    request.user = SimpleLazyObject(lambda: inner)
    request.user._setup()
    configure(recorder={})
    with queries() as captured:
        host.track(request, "before")
    assert len(captured) == 0
    assert request.user.is_authenticated
    host.track(request, "after")
    assert who() == [("before", None), ("after", str(ada.pk))]
