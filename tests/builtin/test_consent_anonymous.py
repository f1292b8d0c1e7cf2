"""What becomes of the host's anonymous cookie when a visitor changes their mind."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import include, path

from pluginhost import host
from pluginhost.builtin.consent import grant, withdraw
from tests.samples import Folder, Recorder

COOKIE = "visitor"
ID = "0123456789abcdef" * 2
rf = RequestFactory()


def visit(request):
    """Track, choose as often as asked, tracking after each choice."""
    host.track(request, "first")
    response = HttpResponse()
    for choice in request.GET.getlist("choose"):
        grant(response, request, choice.split())
        host.track(request, "after")
    return response


urlpatterns = [
    path("consent/", include("pluginhost.builtin.consent.urls")),
    path("visit/", visit),
]


@pytest.fixture(autouse=True)
def site(settings, monkeypatch):
    settings.ROOT_URLCONF = __name__
    monkeypatch.setattr(Folder, "personal_data", False)


@pytest.fixture
def enable(configure):
    """A count without persons that needs no consent, and one with persons for each of two purposes."""

    def enable(necessary="folder", analytics="recorder", **options):
        configure(
            "inline",
            consent=options,
            necessary={"PLUGIN": necessary, "PURPOSE": "necessary"},
            analytics={"PLUGIN": analytics},
            marketing={"PLUGIN": "recorder", "PURPOSE": "marketing"},
            filter={"PURPOSE": "functional"},
            snippet={"PURPOSE": "pictures"},
            ANONYMOUS_COOKIE=COOKIE,
        )

    return enable


def request_with(**cookies):
    request = rf.get("/")
    request.COOKIES.update({COOKIE: ID, "pluginhost_consent": "1:analytics.marketing", **cookies})
    return request


def is_deleted(response):
    """Whether the response deletes the cookie, where the middleware has set it."""
    morsel = response.cookies.get(COOKIE)
    if morsel is None:
        return False
    assert (morsel.value, morsel["path"], morsel["domain"], morsel["samesite"]) == ("", "/", "", "Lax")
    return morsel["max-age"] == 0


def ids(alias):
    return [event.anonymous_id for event in Recorder.seen.get(alias, [])]


def test_a_withdrawal_ends_the_anonymous_id(enable, client):
    enable()
    client.cookies["pluginhost_consent"] = "1:analytics"
    client.get("/visit/")
    [first] = ids("analytics")
    assert client.cookies[COOKIE].value == first
    assert ids("necessary") == [first]

    answer = client.post("/consent/")
    assert is_deleted(answer)
    assert client.cookies[COOKIE].value == ""
    assert COOKIE not in client.get("/visit/").cookies
    assert ids("necessary") == [first, None]
    assert ids("analytics") == [first]


@pytest.mark.parametrize(
    ("purposes", "deleted"),
    [
        ([], True),
        (["analytics"], False),
        (["marketing"], False),
        (["analytics", "marketing", "more"], False),
        (["unheard-of", "functional", "pictures"], True),
        (["filter"], True),
    ],
    ids=str,
)
def test_it_lasts_while_a_purpose_needs_it(enable, purposes, deleted):
    enable()
    response = HttpResponse()
    grant(response, request_with(), purposes)
    assert is_deleted(response) is deleted


def test_a_purpose_without_personal_data_does_not_need_it(enable):
    enable(analytics="folder")
    response = HttpResponse()
    grant(response, request_with(), ["analytics"])
    assert is_deleted(response)


def test_what_is_necessary_may_need_it(enable):
    enable(necessary="recorder")
    request, response = request_with(), HttpResponse()
    withdraw(response, request)
    assert not is_deleted(response)
    assert host.anonymous_id(request) == ID


@pytest.mark.parametrize(("options", "deleted"), [({}, True), ({"CHOICE_OVERRIDES_HEADERS": True}, False)], ids=str)
def test_headers_may_leave_nothing_that_needs_it(enable, options, deleted):
    enable(**options)
    request, response = request_with(), HttpResponse()
    request.META["HTTP_SEC_GPC"] = "1"
    grant(response, request, ["marketing"])
    assert is_deleted(response) is deleted


def test_it_is_judged_without_the_user(enable, monkeypatch):
    """Who can't be looked up in an event loop."""
    asked = []
    monkeypatch.setattr(User, "agreed", lambda user: asked.append(user), raising=False)
    enable(OPT_OUT="agreed")
    request, response = request_with(sessionid="x" * 32), HttpResponse()
    request.user = User(pk=5)
    grant(response, request, ["analytics"])
    assert not is_deleted(response)
    assert asked == []


def test_the_same_request_forgets_it(enable):
    enable()
    request, response = request_with(), HttpResponse()
    host.track(request, "before")
    withdraw(response, request)
    host.track(request, "after")
    assert ids("necessary") == [ID, None]
    assert host.anonymous_id(request) is None


def test_each_response_of_the_request_deletes_it(enable):
    """A view may start over with another response."""
    enable()
    request = request_with()
    withdraw(HttpResponse(), request)
    response = HttpResponse()
    withdraw(response, request)
    assert is_deleted(response)


def test_an_id_that_this_request_has_made_is_not_set(enable, client):
    enable(DEFAULT=["analytics"])
    answer = client.get("/visit/?choose=")
    assert COOKIE not in answer.cookies
    [first, after] = ids("necessary")
    assert first
    assert after is None
    assert ids("analytics") == [first]


def test_who_agrees_again_gets_another_id(enable, client):
    enable()
    client.cookies["pluginhost_consent"] = "1:analytics"
    client.cookies[COOKIE] = ID
    answer = client.get("/visit/?choose=&choose=analytics")
    [before, after] = ids("analytics")
    assert before == ID
    assert after not in (ID, None)
    assert answer.cookies[COOKIE].value == after
    assert answer.cookies[COOKIE]["max-age"] > 0
    assert "1970" not in answer.cookies[COOKIE]["expires"]


@pytest.mark.parametrize("name", [None, "another"])
def test_no_cookie_of_the_site_is_touched(enable, settings, name):
    enable()
    settings.PLUGINHOST = {**settings.PLUGINHOST, "ANONYMOUS_COOKIE": name}
    response = HttpResponse()
    withdraw(response, request_with())
    assert set(response.cookies) == {"pluginhost_consent"}


def test_while_the_plugin_is_not_enabled_everything_is_allowed(configure):
    configure(recorder={}, ANONYMOUS_COOKIE=COOKIE)
    response = HttpResponse()
    withdraw(response, request_with())
    assert not is_deleted(response)
