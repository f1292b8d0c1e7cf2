"""``host.track_client``: events wait in the session for a page, this one or the next, and are rendered once."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext

from pluginhost import InvalidEvent, host
from pluginhost.client import KEY
from pluginhost.events import keyed_message_id
from pluginhost.identity import page_user_id
from tests.pages import names
from tests.samples import Filter, Recorder, told

pytestmark = pytest.mark.django_db
rf = RequestFactory()


def request_with_session(method="get", **stored):
    """A request as the session middleware makes it, of a visitor whose session holds something."""
    client = Client()
    session = client.session
    session.update(stored)
    session.save()
    request = getattr(rf, method)("/", HTTP_COOKIE=f"sessionid={session.session_key}")
    request.session = session
    return request


def counted(change):
    """What the counts become by a call."""
    before = host.counts
    change()
    return {name: n - before.get(name, 0) for name, n in host.counts.items() if n != before.get(name, 0)}


def put(client, *events):
    """Let these wait, as they are, in the session of the client."""
    session = client.session
    session[KEY] = list(events)
    session.save()
    client.cookies["sessionid"] = session.session_key


# --- when an event is rendered ---


def test_on_this_page(configure, client, sessions):
    configure(tag={})
    response = client.get("/pages/plain/?name=first&name=second")
    head, body = told(response.text)
    assert [event[1:] for event in head["events"]] == [
        ["first", {"from": "/pages/plain/"}, None],
        ["second", {"from": "/pages/plain/"}, None],
    ]
    assert body["events"] == []


def test_an_anonymous_visitor_gets_no_session_for_it(configure, client, sessions):
    configure(tag={})
    response = client.get("/pages/plain/?name=first")
    assert names(response) == ["first"]
    assert not response.cookies
    assert not Session.objects.exists()


def test_after_a_redirect(configure, client, sessions):
    """POST, redirect, GET; and never again."""
    configure(tag={})
    response = client.post("/pages/form/", {"name": ["paid", "</script>"]})
    assert (response.status_code, response.text) == (302, "")
    assert names(client.get("/pages/plain/")) == ["paid", "</script>"]
    assert names(client.get("/pages/plain/")) == []


def test_after_several_redirects_in_the_order_of_the_calls(configure, client, sessions):
    configure(tag={})
    for name in "abc":
        client.post("/pages/form/", {"name": name})
    assert names(client.get("/pages/plain/?name=d")) == ["a", "b", "c", "d"]


def test_at_the_place_that_comes_first(configure, client):
    """What is tracked between head and body comes in the body."""
    configure(tag={})
    request = request_with_session()
    host.track_client(request, "before")
    [head] = told(host.render(request))
    host.track_client(request, "between")
    [body] = told(host.render(request, "body"))
    assert [event[1] for event in head["events"]] == ["before"]
    assert [event[1] for event in body["events"]] == ["between"]


def test_each_plugin_with_a_snippet_has_it(configure, client):
    configure(tag={}, other={"PLUGIN": "tag"}, snippet={}, recorder={})
    response = client.get("/pages/plain/?name=first")
    assert names(response) == names(response, alias="other") == ["first"]


def test_what_another_part_of_the_session_holds_stays(configure, client, sessions):
    configure(tag={})
    session = client.session
    session["cart"] = [1, 2]
    session.save()
    client.cookies["sessionid"] = session.session_key
    client.post("/pages/form/", {"name": "paid"})
    client.get("/pages/plain/")
    assert dict(client.session) == {"cart": [1, 2]}


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("head", {}),
        ("get", {"Sec-Purpose": "prefetch"}),
        ("get", {"Sec-Purpose": "prefetch;prerender"}),
        ("get", {"Purpose": "prefetch"}),
        ("get", {"X-Moz": "prefetch"}),
    ],
    ids=str,
)
def test_a_page_that_nobody_may_see_takes_nothing(configure, client, sessions, method, headers):
    configure(tag={})
    client.post("/pages/form/", {"name": "paid"})
    response = getattr(client, method)("/pages/plain/", headers=headers)
    assert not [said for said in told(response.text) if said["events"]]
    assert names(client.get("/pages/plain/")) == ["paid"]


@pytest.mark.parametrize("status", [500, 503])
def test_a_page_of_a_failure_does_not_end_the_waiting(configure, client, sessions, status):
    """Django saves no session then. The browser knows the message id if it has sent the event already."""
    configure(tag={})
    client.post("/pages/form/", {"name": "paid"})
    first = client.get(f"/pages/plain/?status={status}")
    second = client.get("/pages/plain/")
    assert names(second) == ["paid"]
    sent = [event[0] for said in told(first.text) for event in said["events"]]
    assert set(sent) <= {told(second.text)[0]["events"][0][0]}
    assert names(client.get("/pages/plain/")) == []


@pytest.mark.parametrize("status", [400, 404])
def test_a_page_of_an_error_is_a_page(configure, client, sessions, status):
    configure(tag={})
    client.post("/pages/form/", {"name": "paid"})
    assert names(client.get(f"/pages/plain/?status={status}")) == ["paid"]
    assert names(client.get("/pages/plain/")) == []


def test_without_a_session_cookie_no_session_is_touched(configure, client):
    configure(tag={}, nametag={})
    with CaptureQueriesContext(connection) as queries:
        response = client.get("/pages/plain/")
    assert not queries.captured_queries
    assert not response.wsgi_request.session.accessed


def test_a_session_that_is_a_plain_dict(configure):
    """As projects make it in tests of their views."""
    configure(tag={}, nametag={})
    request = rf.get("/", HTTP_COOKIE="sessionid=x")
    request.session = {}
    assert host.track_client(request, "x")
    assert [[event[1] for event in said["events"]] for said in told(host.render(request))] == [["x"], ["x"]]
    assert request.session == {}


def test_htmx_gets_what_waits_in_the_body(configure, client):
    """It throws the head of an answer away."""
    configure(tag={})
    client.post("/pages/form/", {"name": "paid"})
    page = client.get("/pages/plain/", headers={"HX-Request": "true", "HX-Boosted": "true"}).text
    head, _, body = page.partition("<body>")
    assert "paid" not in head
    assert "paid" in body
    assert "paid" not in client.get("/pages/plain/").text


# --- what an event is ---


def test_the_facts_of_an_event(configure):
    configure(tag={})
    request = request_with_session()
    message_id = host.track_client(request, "paid", {"sum": 12, "password": "x"}, value=12.5, key="order:1")
    assert message_id == keyed_message_id("paid", "order:1")
    [said] = told(host.render(request))
    assert said["events"] == [[message_id, "paid", {"sum": 12, "password": "[masked]"}, 12.5]]


def test_a_key_makes_two_events_one(configure, client, sessions):
    """A form that is sent twice: one page may not send the same thing twice."""
    configure(tag={})
    request = request_with_session()
    first = host.track_client(request, "paid", key="order:1")
    host.track_client(request, "seen")
    assert host.track_client(request, "paid", key="order:1") == first
    [said] = told(host.render(request))
    assert [event[1] for event in said["events"]] == ["paid", "seen"]


def test_switches(configure):
    configure(tag={}, other={"PLUGIN": "tag"})
    request = request_with_session()
    assert host.track_client(request, "a", plugins={"other": False})
    assert host.track_client(request, "b", plugins={"tag": {"colour": "red"}})
    assert host.track_client(request, "c", plugins={"tag": False, "other": False}) is None
    assert {said["alias"]: [event[1] for event in said["events"]] for said in told(host.render(request))} == {
        "tag": ["a", "b"],
        "other": ["b"],
    }


@pytest.mark.parametrize(
    ("arguments", "details", "path"),
    [
        (["x", {"a": float("nan")}], {}, "properties.a"),
        (["x", {"a": {"b": object()}}], {}, "properties.a.b"),
        ([""], {}, "name"),
        (["x" * 201], {}, "name"),
        (["x", ["a"]], {}, "properties"),
        (["x"], {"key": ""}, "key"),
        (["x"], {"value": "much"}, "value"),
        (["x"], {"plugins": {"tga": False}}, "plugins.tga"),
        (["x"], {"plugins": {"tag": {"size": 1}}}, "plugins.tag.size"),
        (["x", {"a": "x" * 2048}], {}, "event"),
        (["x", {"a": "\u20ac" * 700}], {}, "event"),
    ],
    ids=lambda value: repr(value)[:36],
)
def test_bad_input(configure, caplog, arguments, details, path):
    configure(tag={})
    request = request_with_session(other=1)
    with pytest.raises(InvalidEvent) as raised:
        host.track_client(request, *arguments, **details)
    assert raised.value.path == path

    configure(tag={}, STRICT=False)
    assert counted(lambda: host.track_client(request, *arguments, **details)) == {"invalid": 1}
    assert host.track_client(request, *arguments, **details) is None
    assert f"refused: {path}: " in caplog.text
    assert dict(request.session) == {"other": 1}


def test_how_much_may_wait(configure, caplog):
    configure(tag={})
    request = request_with_session()
    for n in range(20):
        if len(str(request.session.get(KEY))) > 1900:
            break
        host.track_client(request, f"{n}")
    with pytest.raises(InvalidEvent, match=r"^event: would make \d+ events of \d+ bytes wait for a page; 20 and 2048"):
        for n in range(20):
            host.track_client(request, f"one too many {n}")

    configure(tag={}, STRICT=False)
    assert host.track_client(request, "another") is None
    assert "refused: event: would make" in caplog.text
    [said] = told(host.render(request))
    assert said["events"][0][1] == "0"
    assert "another" not in [event[1] for event in said["events"]]


def test_at_most_twenty(configure, monkeypatch):
    monkeypatch.setattr("pluginhost.client.MAX_BYTES", 10**6)
    configure(tag={})
    request = request_with_session()
    for n in range(20):
        assert host.track_client(request, f"{n}")
    with pytest.raises(InvalidEvent, match="would make 21 events"):
        host.track_client(request, "20")


@pytest.mark.parametrize(
    ("source", "problem"),
    [(None, "is of type NoneType; it must be a request"), (User(pk=1), "is of type User"), ("x", "is of type str")],
    ids=str,
)
def test_it_takes_a_request(configure, source, problem):
    configure(tag={})
    with pytest.raises(InvalidEvent, match=problem):
        host.track_client(source, "x")


def test_an_unknown_keyword(configure):
    configure(tag={})
    with pytest.raises(TypeError, match="unexpected keyword arguments: user_id"):
        host.track_client(rf.get("/"), "x", user_id=1)


def test_without_sessions(configure, client, settings):
    settings.MIDDLEWARE = settings.MIDDLEWARE[:1]
    configure(tag={})
    with pytest.raises(InvalidEvent, match="^request: has no session .* add Django's SessionMiddleware"):
        client.get("/pages/form/?name=x")
    client.cookies["sessionid"] = "x" * 32
    assert names(client.get("/pages/plain/")) == []


def test_turned_off(configure, client):
    configure(tag={}, ENABLED=False)
    client.post("/pages/form/", {"name": "paid"})
    assert not client.cookies
    assert client.get("/pages/plain/?name=x").text == "<head></head><body></body>"


def test_without_a_snippet_there_is_nothing_to_wait_for(configure, client):
    configure(recorder={})
    request = rf.get("/")  # without a session: nothing asks for it
    assert counted(lambda: host.track_client(request, "x")) == {"filtered": 1}


def test_what_is_accepted_is_counted(configure):
    configure(tag={})
    assert counted(lambda: host.track_client(request_with_session(), "x")) == {"accepted": 1}


# --- filters, at the call and at the page ---


@pytest.mark.parametrize(
    ("at_the_call", "at_the_page", "seen"),
    [
        (None, None, {"tag": ["x"], "other": ["x"]}),
        (False, None, {"tag": [], "other": []}),
        (frozenset({"analytics"}), None, {"tag": ["x"], "other": []}),
        (None, frozenset({"marketing"}), {"other": ["x"]}),
        (frozenset({"analytics"}), frozenset({"marketing"}), {"other": []}),
        (None, False, {}),
    ],
    ids=str,
)
def test_both_count(configure, client, at_the_call, at_the_page, seen):
    """A visitor may give or withdraw a consent between the two."""
    configure(filter={}, tag={}, other={"PLUGIN": "tag", "PURPOSE": "marketing"})
    Filter.answer = at_the_call
    client.post("/pages/form/", {"name": "x"})
    Filter.answer = at_the_page
    response = client.get("/pages/plain/")
    assert {
        said["alias"]: [event[1] for event in said["events"]] for said in told(response.text) if said["place"] == "head"
    } == seen


def test_what_a_filter_keeps_out_at_the_page_is_gone(configure, client):
    """Consent that is given again does not bring back what was withheld."""
    configure(filter={}, tag={})
    client.post("/pages/form/", {"name": "x"})
    Filter.answer = False
    assert counted(lambda: client.get("/pages/plain/")) == {"filtered": 1}
    Filter.answer = None
    assert names(client.get("/pages/plain/")) == []


def test_an_alias_that_is_gone(configure, client, caplog):
    configure(tag={}, other={"PLUGIN": "tag"})
    client.post("/pages/form/", {"name": "x"})
    configure(other={"PLUGIN": "tag"}, newer={"PLUGIN": "tag"})
    response = client.get("/pages/plain/")
    assert names(response, alias="other") == ["x"]
    assert names(response, alias="newer") == []
    assert not caplog.records


# --- what goes wrong ---


def test_a_renderer_that_raises(configure, client, caplog):
    def fail(request, page):
        raise LookupError("broken")

    configure(tag={}, other={"PLUGIN": "tag"})
    Recorder.act["tag"] = fail
    before = host.counts.get("lost", 0)
    response = client.get("/pages/plain/?name=first&name=second")
    assert names(response, alias="other") == ["first", "second"]
    assert host.counts["lost"] == before + 2
    assert "plugin tag: render_client failed" in caplog.text
    assert "plugin tag: 2 waiting events are lost: it rendered nothing" in caplog.text


GOOD = '{"type":"track","name":"good","message_id":"1","timestamp":"2026-01-01T00:00:00Z"}'


@pytest.mark.parametrize(
    "garbage",
    [
        "x",
        None,
        5,
        [],
        ["tag"],
        ["tag", "x", "y"],
        [["tag"], "{}"],
        [["tag"], 5],
        [["tag"], None],
        [5, GOOD],
        [[["tag"]], GOOD],
        [["tag"], "\ud800"],
        [["tag"], GOOD.replace("good", "\0").replace("track", "other")],
        {"a": 1, "b": 2},
    ],
    ids=repr,
)
def test_garbage_in_the_session(configure, client, caplog, garbage):
    """What an older version or another program left there breaks no page, and nothing that is tracked after it."""
    configure(tag={})
    put(client, garbage, [["tag"], GOOD])
    assert names(client.get("/pages/plain/?name=new")) == ["good", "new"]
    assert "an event that waited for a page can't be read; it is dropped" in caplog.text
    assert names(client.get("/pages/plain/")) == []


@pytest.mark.parametrize("garbage", ["x", 5, {"a": 1}, None, True], ids=repr)
def test_garbage_under_the_key(configure, client, garbage):
    configure(tag={})
    session = client.session
    session[KEY] = garbage
    session.save()
    client.cookies["sessionid"] = session.session_key
    assert names(client.get("/pages/plain/")) == []
    assert names(client.get("/pages/plain/?name=new")) == ["new"]


class BrokenSession(dict):
    modified = accessed = True

    def get(self, *_):
        raise ConnectionError("no cache server")

    __setitem__ = get


def test_a_session_that_fails(configure, caplog):
    configure(tag={}, nametag={}, STRICT=False)
    request = rf.get("/", HTTP_COOKIE="sessionid=x")
    request.session = BrokenSession()
    assert host.track_client(request, "x") is None
    assert "ConnectionError" in caplog.text
    assert [said["events"] for said in told(host.render(request))] == [[], []]
    assert "the session could not be read" in caplog.text

    configure(tag={})
    with pytest.raises(InvalidEvent, match=r"^event: raised ConnectionError"):
        host.track_client(request, "x")


def test_a_user_who_cannot_be_found_out(configure, caplog):
    class Request:
        COOKIES = {"sessionid": "x"}

        @property
        def user(self):
            raise ConnectionError("no database")

    assert page_user_id(Request()) is None
    assert "the session could not be read" in caplog.text


def test_a_place_that_is_none(configure, client):
    """A typing error would make all events go nowhere."""
    configure(tag={})
    request = request_with_session()
    host.track_client(request, "x")
    with pytest.raises(ValueError, match="'haed' is no place"):
        host.render(request, "haed")
    assert told(host.render(request))[0]["events"]


# --- wrapped requests ---


def test_a_request_that_is_wrapped(configure, client):
    """As Django REST framework does it."""
    configure(nametag={})
    user = User.objects.create_user("ada")
    client.force_login(user)
    response = client.get("/pages/api/page/")
    [said] = told(response.text)
    assert ([event[1] for event in said["events"]], said["identity"]) == (["wrapped"], str(user.pk))
    assert "private" in response.headers["Cache-Control"]
    assert names(client.get("/pages/plain/"), alias="nametag") == []
