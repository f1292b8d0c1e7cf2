"""The view for a banner's form, and what a template is told."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.template import engines
from django.test import Client
from django.urls import include, path, reverse

from pluginhost import host
from pluginhost.builtin.consent import grant, withdraw
from tests.samples import Recorder

BANNER = "{% if consent is None %}banner{% elif 'marketing' in consent %}all{% else %}some{% endif %}"


def page(request):
    text = "plain" if "plain" in request.GET else BANNER
    return HttpResponse(engines["django"].from_string(text).render(request=request))


def agree(request):
    host.track(request, "before")
    response = HttpResponse("<html>")
    if "withdraw" in request.GET:
        withdraw(response, request)
    else:
        grant(response, request, ["analytics"])
    return response


def tracked(request):
    host.track(request, "something")
    host.track(request, "something else")
    return HttpResponse()


urlpatterns = [
    path("consent/", include("pluginhost.builtin.consent.urls")),
    path("banner/", page),
    path("agree/", agree),
    path("tracked/", tracked),
]


@pytest.fixture(autouse=True)
def site(settings, configure):
    settings.ROOT_URLCONF = __name__
    [engine] = settings.TEMPLATES
    processors = [
        *engine["OPTIONS"]["context_processors"],
        "pluginhost.builtin.consent.context_processors.consent",
    ]
    settings.TEMPLATES = [{**engine, "OPTIONS": {"context_processors": processors}}]
    configure(consent={}, recorder={})


def choose(client, *purposes, **data):
    return client.post(reverse("pluginhost_consent:choose"), {"purpose": purposes, **data})


def test_a_choice_is_kept_and_the_page_comes_back(client):
    answer = choose(client, "analytics", "marketing", next="/banner/?page=2")
    assert (answer.status_code, answer["Location"]) == (302, "/banner/?page=2")
    assert client.cookies["pluginhost_consent"].value == "1:analytics.marketing"
    assert "no-store" in answer["Cache-Control"]


def test_no_purpose_is_a_refusal(client):
    choose(client, "analytics")
    choose(client)
    assert client.cookies["pluginhost_consent"].value == "1:"


@pytest.mark.parametrize("purpose", ["Marketing", "", "a.b", "x" * 40])
def test_what_is_no_purpose_is_refused(client, purpose):
    answer = choose(client, "analytics", purpose)
    assert answer.status_code == 400
    assert "pluginhost_consent" not in client.cookies


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example/", "//evil.example/", "/\\evil.example/", "javascript:alert(1)", "http:///evil.example", ""],
)
def test_nobody_is_sent_to_another_site(client, elsewhere):
    assert choose(client, next=elsewhere)["Location"] == "/"
    answer = client.post("/consent/", {"next": elsewhere}, headers={"referer": elsewhere})
    assert answer["Location"] == "/"


def test_without_next_the_page_goes_back(client):
    answer = client.post("/consent/", headers={"referer": "http://testserver/banner/"})
    assert answer["Location"] == "http://testserver/banner/"
    assert choose(client)["Location"] == "/"


def test_from_https_nobody_is_sent_to_http(client):
    answer = client.post("/consent/", {"next": "http://testserver/banner/"}, secure=True)
    assert answer["Location"] == "/"
    assert client.cookies["pluginhost_consent"]["secure"]


@pytest.mark.parametrize("method", ["get", "head", "put", "delete"])
def test_only_a_form_chooses(client, method):
    answer = getattr(client, method)("/consent/?purpose=analytics")
    assert answer.status_code == 405
    assert "pluginhost_consent" not in client.cookies


def test_the_form_needs_a_csrf_token_even_without_the_middleware():
    client = Client(enforce_csrf_checks=True)
    assert choose(client, "marketing").status_code == 403
    assert "pluginhost_consent" not in client.cookies
    client.cookies["csrftoken"] = token = "x" * 32
    assert choose(client, "marketing", csrfmiddlewaretoken=token).status_code == 302
    assert client.cookies["pluginhost_consent"].value == "1:marketing"


def test_a_template_is_told_whether_to_ask(client):
    assert client.get("/banner/").content == b"banner"
    choose(client, "analytics")
    assert client.get("/banner/").content == b"some"
    choose(client, "marketing")
    assert client.get("/banner/").content == b"all"


def test_a_page_that_shows_the_choice_varies_by_it(client):
    assert client.get("/banner/")["Vary"] == "Cookie"
    assert "Vary" not in client.get("/banner/?plain=")


def test_the_choice_counts_for_the_page_view_of_its_own_response(client, configure):
    """The middleware tracks a page after the view has set the cookie."""
    configure("inline", consent={}, recorder={}, PAGE_VIEWS="server")
    client.get("/agree/")
    assert [event.type for event in Recorder.seen["recorder"]] == ["page"]
    client.get("/agree/?withdraw=")
    assert [event.name for event in Recorder.seen["recorder"][1:]] == ["before"]


@pytest.mark.django_db
@pytest.mark.parametrize("option", ["OPT_OUT", "OF_USER"])
def test_the_user_costs_two_queries_and_a_vary(client, configure, option, django_assert_num_queries):
    """As the guide says; without a session cookie, nothing."""
    own = "is_staff" if option == "OPT_OUT" else "tests.builtin.test_consent.answer"
    configure(consent={option: own}, recorder={"PURPOSE": "necessary"})
    with django_assert_num_queries(0):
        assert "Vary" not in client.get("/tracked/")
    client.force_login(User.objects.create_user("ada"))
    with django_assert_num_queries(2):
        assert client.get("/tracked/")["Vary"] == "Cookie"
    configure(consent={}, recorder={"PURPOSE": "necessary"})
    with django_assert_num_queries(0):
        assert "Vary" not in client.get("/tracked/")
