"""Pages and caches: no page that names a visitor, or carries what waited, is given to another one."""

from __future__ import annotations

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.http import StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory
from django.test.utils import CaptureQueriesContext

from pluginhost import host
from pluginhost.delivery import memory
from pluginhost.middleware import TrackerMiddleware
from tests.samples import Filter, NameTag, Robots, content, told
from tests.site import pages

pytestmark = pytest.mark.django_db

UPDATE = "django.middleware.cache.UpdateCacheMiddleware"
FETCH = "django.middleware.cache.FetchFromCacheMiddleware"
ROBOT = {"User-Agent": "a robot"}
GPC = {"Sec-GPC": "1"}


@pytest.fixture(autouse=True)
def _empty_cache():
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def cached(settings):
    """The whole site is cached, and our middleware stands where the docs say."""
    settings.MIDDLEWARE = [UPDATE, *settings.MIDDLEWARE, FETCH]


@pytest.fixture
def ada():
    return User.objects.create_user("ada")


@pytest.fixture
def bob():
    return User.objects.create_user("bob", is_staff=True)


def signed_in(user):
    client = Client()
    client.force_login(user)
    return client


def told_by(response):
    """Who is named in a page, and which events it carries."""
    said = told(content(response))
    identities = {facts["identity"] for facts in said} - {None}
    return sorted(identities), sorted({event[1] for facts in said for event in facts["events"]})


def headers(response):
    return {name: value for name, value in response.headers.items() if name in ("Vary", "Cache-Control")}


def pages_of(response):
    return len(told(response.text))


# --- the headers, exactly ---

PRIVATE = "private"


@pytest.mark.parametrize(
    ("plugins", "visitor", "vary", "control", "stored"),
    [
        (["recorder"], "nobody", "", None, True),
        (["recorder"], "ada", "", None, True),
        (["filter", "recorder"], "nobody", "", None, True),
        (["snippet"], "nobody", "", None, True),
        (["tag"], "nobody", "", None, True),
        (["tag"], "ada", "Cookie", None, True),  # Django says so of a page that has looked into the session
        (["tag"], "event", "Cookie", PRIVATE, False),
        (["robots", "tag"], "nobody", "", None, True),
        (["robots", "tag"], "robot", "", PRIVATE, False),
        (["robots", "recorder"], "robot", "", None, True),
        (["robots", "nametag"], "robot", "", PRIVATE, False),
        (["filter", "tag"], "nobody", "Cookie", None, False),
        (["privacy", "tag"], "nobody", "DNT, Sec-GPC", None, False),
        (["privacy", "tag"], "gpc", "DNT, Sec-GPC", None, False),
        (["privacy", "tag"], "event", "Cookie, DNT, Sec-GPC", PRIVATE, False),
        (["privacy", "nametag"], "gpc", "DNT, Sec-GPC", None, False),
        (["privacy", "filter", "robots", "tag"], "nobody", "Cookie, DNT, Sec-GPC", None, False),
        (["nametag"], "nobody", "Cookie", None, False),
        (["nametag"], "stranger", "Cookie", None, False),
        (["nametag"], "ada", "Cookie", PRIVATE, False),
        (["nametag", "tag", "privacy"], "ada", "Cookie, DNT, Sec-GPC", PRIVATE, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["plain", "templated", "cached", "cached-templated"])
def test_the_headers_of_a_page(configure, ada, plugins, visitor, vary, control, stored, path):
    """``stored``: a view's own ``cache_page`` may keep the page, and then says how long."""
    configure(**{name: {} for name in plugins})
    client = signed_in(ada) if visitor == "ada" else Client()
    if visitor == "stranger":
        client.cookies["sessionid"] = "x" * 32
    given = {"robot": ROBOT, "gpc": GPC}.get(visitor, {})
    found = headers(client.get(f"/pages/{path}/", {"name": "paid"} if visitor == "event" else {}, headers=given))
    assert set(found.get("Vary", "").split(", ")) == set(vary.split(", "))
    assert found.get("Cache-Control") == ("max-age=600" if stored and path.startswith("cached") else control)


@pytest.mark.parametrize("path", ["/pages/plain/", "/pages/json/", "/pages/file/", "/pages/streamed/", "/page/"])
@pytest.mark.parametrize("plugins", [{}, {"recorder": {}}, {"filter": {}, "recorder": {}, "robots": {}}], ids=str)
def test_without_a_snippet_all_headers_are_as_they_were(configure, ada, settings, path, plugins):
    configure(**plugins)
    with_host = signed_in(ada).get(path, headers=ROBOT)
    settings.MIDDLEWARE = settings.MIDDLEWARE[1:]
    without = signed_in(ada).get(path, headers=ROBOT)  # another client: one loads its middleware once
    assert without.headers == with_host.headers


@pytest.mark.parametrize("path", ["/pages/json/", "/pages/file/", "/pages/form/", "/"])
def test_what_is_no_page_keeps_its_headers(configure, ada, path):
    configure(nametag={}, filter={}, privacy={}, robots={})
    assert headers(signed_in(ada).get(path, headers=ROBOT)) == {}


def test_a_page_that_calls_itself_public_does_so_no_longer(configure, ada):
    configure(nametag={})
    assert headers(Client().get("/pages/public/"))["Cache-Control"] in ("public, max-age=600", "max-age=600, public")
    control = headers(signed_in(ada).get("/pages/public/"))["Cache-Control"]
    assert set(control.split(", ")) == {"private", "max-age=600"}


def test_a_new_anonymous_id_is_for_one_browser(configure):
    """A cache that looks at Cookie alone could give it to all who have the same cookies."""
    configure(recorder={}, ANONYMOUS_COOKIE="visitor")
    client = Client()
    client.cookies["theme"] = "dark"
    assert headers(client.get("/")) == {"Vary": "Cookie", "Cache-Control": "private"}


# --- Django's caches ---


@pytest.mark.parametrize("path", ["/pages/plain/", "/pages/templated/", "/pages/cached/", "/pages/cached-templated/"])
@pytest.mark.parametrize("whole_site", [True, False], ids=["site", "view"])
def test_no_visitor_gets_the_page_of_another(configure, request, ada, bob, path, whole_site):
    if whole_site:
        request.getfixturevalue("cached")
    configure(nametag={}, tag={})
    ada_s, bob_s, nobody = signed_in(ada), signed_in(bob), Client()
    ada_s.post("/pages/form/", {"name": "paid by ada"})

    assert told_by(nobody.get(path)) == ([], [])
    assert told_by(ada_s.get(path)) == ([str(ada.pk)], ["paid by ada"])
    assert told_by(bob_s.get(path)) == ([str(bob.pk)], [])
    assert told_by(nobody.get(path)) == ([], [])
    assert told_by(Client().get(path)) == ([], [])
    assert told_by(ada_s.get(path)) == ([str(ada.pk)], [])

    ada_s.get("/pages/sign-out/")
    assert told_by(ada_s.get(path)) == ([], [])
    ada_s.force_login(bob)
    assert told_by(ada_s.get(path)) == ([str(bob.pk)], [])


@pytest.mark.parametrize("path", ["/pages/plain/", "/pages/cached/"])
def test_events_of_a_visitor_without_a_name(configure, cached, path):
    configure(tag={})
    client = Client()
    assert told_by(client.get(path)) == ([], [])
    client.post("/pages/form/", {"name": "paid"})
    first, second = client.get(f"{path}?fresh"), client.get(f"{path}?fresh")
    assert told_by(first) == ([], ["paid"])
    assert told_by(second) == told_by(Client().get(f"{path}?fresh")) == ([], [])


def test_an_event_that_waits_behind_a_cached_page_waits_on(configure, cached):
    configure(tag={})
    client = Client()
    Client().get("/pages/plain/")
    client.post("/pages/form/", {"name": "paid"})
    assert told_by(client.get("/pages/plain/")) == ([], [])
    assert told_by(client.get("/pages/plain/?other")) == ([], ["paid"])


def answered(monkeypatch, path, *requests):
    """How many of these requests a view answered, and no cache."""
    calls = []
    rendered = pages.rendered
    monkeypatch.setattr(pages, "rendered", lambda *arguments: calls.append(1) or rendered(*arguments))
    for given in requests:
        Client().get(path, headers=given)
    return len(calls)


@pytest.mark.parametrize("path", ["/pages/plain/", "/pages/cached/"])
@pytest.mark.parametrize("whole_site", [True, False], ids=["site", "view"])
def test_people_share_a_page_and_robots_get_their_own(configure, request, monkeypatch, path, whole_site):
    """What is withheld from a robot never becomes the people's page, whoever comes first."""
    if whole_site:
        request.getfixturevalue("cached")
    configure(robots={}, tag={})
    robot = Client().get(path, headers=ROBOT)
    assert (pages_of(robot), headers(robot)) == (0, {"Cache-Control": "private"})
    person = Client().get(path, headers={"User-Agent": "Firefox"})
    assert pages_of(person) == 2
    if whole_site or "cached" in path:
        assert "private" not in person.headers["Cache-Control"]
        # One copy for all people, whatever their browser.
        assert answered(monkeypatch, path, {"User-Agent": "Safari"}, {"User-Agent": "Chrome"}) == 0
    assert "Vary" not in person.headers


@pytest.mark.parametrize("name", ["user-agent", "USER-AGENT"])
def test_the_name_of_a_header_has_no_case(configure, monkeypatch, name):
    monkeypatch.setattr(Robots, "varies_on", frozenset({name}))
    configure(robots={}, tag={})
    assert headers(Client().get("/pages/plain/", headers=ROBOT)) == {"Cache-Control": "private"}
    assert headers(Client().get("/pages/plain/")) == {}


def test_gpc_and_not(configure, cached, monkeypatch):
    configure(privacy={}, tag={})
    for _ in range(2):
        assert pages_of(Client().get("/pages/plain/", headers=GPC)) == 0
        assert pages_of(Client().get("/pages/plain/")) == 2
    assert answered(monkeypatch, "/pages/plain/", GPC, {}) == 0


def test_a_consent_that_changes(configure, cached):
    """It is in a cookie, and so each answer has a page of its own."""
    Filter.answer = staticmethod(lambda request, user: "consent" in request.COOKIES or False)
    configure(filter={}, tag={})
    client = Client()
    assert pages_of(client.get("/pages/plain/")) == 0
    client.cookies["consent"] = "yes"
    assert pages_of(client.get("/pages/plain/")) == 2
    del client.cookies["consent"]
    assert pages_of(client.get("/pages/plain/")) == 0


def test_a_page_that_varies_is_still_cached_by_the_site(configure, cached, monkeypatch):
    configure(nametag={}, filter={}, privacy={})
    assert answered(monkeypatch, "/pages/plain/", {}, {}, {}) == 1


def test_a_page_of_one_kind_is_still_cached_by_its_view(configure, monkeypatch):
    configure(tag={}, robots={})
    assert answered(monkeypatch, "/pages/cached/", {}, {}) == 1


@pytest.mark.parametrize("asynchronous", [False, True], ids=["wsgi", "asgi"])
def test_a_cached_page_serves_async_too(configure, cached, ada, asynchronous):
    configure(nametag={})
    client = AsyncClient()
    async_to_sync(client.aforce_login)(ada)
    get = async_to_sync(client.get)
    for _ in range(2):
        assert told_by(get("/pages/in-thread/")) == ([str(ada.pk)], [])
    assert told_by(async_to_sync(AsyncClient().get)("/pages/in-thread/")) == ([], [])


def test_without_our_middleware_nothing_personal_is_stored_either(configure, settings, ada):
    settings.MIDDLEWARE = [UPDATE, *settings.MIDDLEWARE[1:], FETCH]
    configure(nametag={})
    assert told_by(signed_in(ada).get("/pages/cached/")) == ([str(ada.pk)], [])
    assert told_by(Client().get("/pages/cached/")) == ([], [])


# --- who is named ---


def test_only_plugins_that_announce_are_told(configure, ada):
    configure(tag={}, nametag={})
    said = told(signed_in(ada).get("/pages/plain/").text)
    assert [(s["alias"], s["place"], s["identity"]) for s in said] == [
        ("tag", "head", None),
        ("nametag", "head", str(ada.pk)),
        ("tag", "body", None),
        ("nametag", "body", str(ada.pk)),
    ]


def test_an_alias_may_announce_and_another_not(configure, ada, monkeypatch):
    def make(self, *arguments):
        super(NameTag, self).__init__(*arguments)
        self.announces_identity = self.alias == "naming"

    monkeypatch.setattr(NameTag, "__init__", make)
    configure(naming={"PLUGIN": "nametag"}, silent={"PLUGIN": "nametag"})
    said = told(signed_in(ada).get("/pages/plain/").text)
    assert {s["alias"]: s["identity"] for s in said} == {"naming": str(ada.pk), "silent": None}


@pytest.mark.parametrize(
    ("plugins", "answer", "asked"),
    [
        (["tag"], None, False),
        (["nametag"], None, True),
        (["filter", "nametag"], False, False),
        (["filter", "nametag"], frozenset({"marketing"}), False),
        (["filter", "nametag", "tag"], frozenset({"analytics"}), True),
    ],
    ids=str,
)
def test_the_user_is_looked_up_only_for_who_announces(configure, ada, plugins, answer, asked):
    Filter.answer = answer
    configure(**{name: {} for name in plugins})
    client = signed_in(ada)
    with CaptureQueriesContext(connection) as queries:
        client.get("/pages/plain/")
    assert any("auth_user" in query["sql"] for query in queries.captured_queries) is asked


def test_without_a_session_cookie_no_user_is_looked_up(configure, client):
    configure(nametag={})
    with CaptureQueriesContext(connection) as queries:
        response = client.get("/pages/plain/")
    assert not queries.captured_queries
    assert not response.wsgi_request.session.accessed


def test_filters_are_asked_again_about_who_has_become_known(configure, ada, bob):
    """One that keeps the staff out has not seen whom it was asked about before."""
    Filter.answer = staticmethod(lambda request, user: not getattr(user, "is_staff", False))
    configure(filter={}, nametag={}, tag={})
    assert pages_of(signed_in(ada).get("/pages/plain/")) == 4
    response = signed_in(bob).get("/pages/plain/")
    assert pages_of(response) == 0
    assert headers(response) == {"Vary": "Cookie", "Cache-Control": "private"}


def test_a_page_of_the_staff_is_for_nobody_else(configure, cached, ada, bob):
    Filter.answer = staticmethod(lambda request, user: not getattr(user, "is_staff", False))
    configure(filter={}, nametag={})
    for user, number in ((bob, 0), (ada, 2), (bob, 0)):
        assert pages_of(signed_in(user).get("/pages/plain/")) == number


@pytest.mark.parametrize("side", ["browser", "server"])
def test_who_counts_views(configure, client, side):
    configure(tag={}, PAGE_VIEWS=side)
    said = told(client.get("/pages/plain/").text)
    assert [s["counts_view"] for s in said] == [side == "browser"] * 2


def test_a_page_without_a_snippet_asks_for_no_nonce(configure):
    """Django and django-csp put a nonce into the policy of those pages only that have asked for it."""

    class Nonce:
        asked = 0

        def __str__(self):
            Nonce.asked += 1
            return "abc"

    def render(**plugins):
        configure(**plugins)
        Nonce.asked = 0
        request = RequestFactory().get("/")
        request.csp_nonce = Nonce()
        host.render(request)
        return Nonce.asked

    Filter.answer = False
    assert render(tag={}) == 1
    assert render(tag={}, filter={}) == 0
    assert render(recorder={}) == 0


# --- streamed pages: the headers come first ---


@pytest.mark.parametrize(
    ("plugins", "visitor", "vary", "control"),
    [
        (["tag"], "nobody", set(), None),
        (["tag"], "ada", {"Cookie"}, PRIVATE),
        (["tag"], "event", {"Cookie"}, PRIVATE),
        (["nametag"], "nobody", {"Cookie"}, None),
        (["nametag"], "ada", {"Cookie"}, PRIVATE),
        (["privacy", "tag"], "nobody", {"DNT", "Sec-GPC"}, None),
        (["robots", "tag"], "nobody", set(), None),
        (["robots", "tag"], "robot", set(), PRIVATE),
        (["filter", "tag"], "nobody", {"Cookie"}, None),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["streamed", "astreamed"])
def test_the_headers_of_a_streamed_page_foresee_it(configure, ada, plugins, visitor, vary, control, path):
    configure(**{name: {} for name in plugins})
    client = signed_in(ada) if visitor == "ada" else Client()
    if path == "astreamed":
        client = AsyncClient()
        if visitor == "ada":
            async_to_sync(client.aforce_login)(ada)
    get = async_to_sync(client.get) if path == "astreamed" else client.get
    query = {"name": "paid"} if visitor == "event" else {}
    response = get(f"/pages/{path}/", query, headers=ROBOT if visitor == "robot" else {})
    before = headers(response)
    named = [str(ada.pk)] if (visitor, plugins) == ("ada", ["nametag"]) else []
    assert told_by(response) == (named, ["paid"] if visitor == "event" else [])
    assert set((before.get("Vary") or "").split(", ")) - {""} == vary
    assert before.get("Cache-Control") == control
    assert headers(response) == before


def test_a_user_whom_another_way_has_named(configure, ada, rf):
    """Such as by a token in a header: there is no session cookie, and the page is private all the same."""
    configure(nametag={})
    request = rf.get("/")
    request.user = ada
    response = TrackerMiddleware(pages.streamed)(request)
    assert response.headers["Cache-Control"] == "private"
    assert told_by(response) == ([str(ada.pk)], [])


def test_a_filter_that_cannot_answer_in_the_event_loop_is_asked_where_the_page_is_rendered(configure, caplog):
    """Its failure there would be no opinion, and remembered."""
    Filter.answer = staticmethod(lambda request, user: not User.objects.filter(is_staff=True).exists())
    User.objects.create_user("bob", is_staff=True)
    configure(filter={}, tag={})
    response = async_to_sync(AsyncClient().get)("/pages/astreamed/")
    assert told(content(response)) == []
    assert not caplog.records


def test_an_event_while_a_page_streams_makes_no_anonymous_id(configure):
    """Its cookie could not be set any more, and so each such page would make a visitor."""

    def view(request):
        def parts():
            host.track(request, "while streaming")
            yield "x"

        return StreamingHttpResponse(parts())

    configure(recorder={}, ANONYMOUS_COOKIE="visitor")
    response = TrackerMiddleware(view)(RequestFactory().get("/"))
    assert b"".join(response) == b"x"
    assert not response.cookies
    assert [event.anonymous_id for event in memory.events] == [None]


# --- copies, nonces ---


@pytest.mark.parametrize("path", ["/pages/copied/", "/pages/copied-cached/"])
def test_a_page_made_with_a_copy_of_the_request_is_as_careful(configure, ada, path):
    configure(nametag={}, recorder={}, ANONYMOUS_COOKIE="own")
    response = signed_in(ada).get(path)

    assert told_by(response)[0] == [str(ada.pk)]
    assert "Cookie" in response.headers["Vary"]
    assert "private" in response.headers["Cache-Control"]
    assert response.cookies["own"].value == memory.events[-1].anonymous_id
    assert told_by(Client().get(path))[0] == []


def test_a_page_with_a_nonce_is_good_for_one_answer(configure, monkeypatch):
    configure(tag={})
    assert Client().get("/pages/cached/").headers["Expires"]
    nonces = iter("abc")

    def nonce(request):
        if "NONCE" not in request.META:
            request.META["NONCE"] = next(nonces)
        return request.META["NONCE"]

    monkeypatch.setattr("pluginhost.html.csp_nonce", nonce)
    cache.clear()
    pages = [Client().get("/pages/cached/").text for _ in range(2)]
    assert 'nonce="a"' in pages[0]
    assert 'nonce="b"' in pages[1]
