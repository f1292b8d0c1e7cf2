"""What events carry of a request: as little as is useful, and nothing that could be a secret."""

from __future__ import annotations

import gc
import weakref
from io import BytesIO

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.test import RequestFactory
from django.urls import ResolverMatch, set_script_prefix, set_urlconf
from django.utils import translation

from pluginhost import InvalidEvent, host
from pluginhost.delivery import memory
from pluginhost.events import Context

rf = RequestFactory()


@pytest.fixture
def context_of(configure):
    """The context of an event of this request."""

    def context_of(request, **keys):
        configure(recorder={}, **keys)
        assert host.track(request, "something")
        return memory.events[-1].context

    return context_of


def test_what_is_copied(context_of):
    request = rf.get(
        "/?utm_source=mail",
        HTTP_USER_AGENT="Mozilla",
        HTTP_ACCEPT_LANGUAGE="de",
        HTTP_REFERER="https://a.example/b?c=d",
    )
    assert context_of(request) == Context(
        ip="127.0.0.0",
        user_agent="Mozilla",
        language="de",
        method="GET",
        url="http://testserver/?utm_source=mail",
        path="/",
        referrer="https://a.example/b",
        route=None,
    )


def test_a_request_made_by_hand_or_none_at_all(context_of):
    assert context_of(None) == Context()
    assert context_of(HttpRequest()) == Context()
    assert host.page(HttpRequest())
    assert memory.events[-1].name == "/"


def test_the_request_is_not_kept(configure):
    configure(recorder={})
    request = rf.get("/")
    with host.batch():
        host.track(request, "something", user_id=3)
        reference = weakref.ref(request)
        del request
        gc.collect()
        assert reference() is None


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("", ""),
        ("q=secret&token=x", ""),
        ("utm_source=a&utm_medium=b&q=1&utm_campaign=c%20d", "?utm_source=a&utm_medium=b&utm_campaign=c+d"),
        ("utm_id=", "?utm_id="),
        ("UTM_SOURCE=a&xutm_source=b", ""),
        ("page=2&q=1&page=3", "?page=2&page=3"),
        ("utm_source=%00%0d%0aSet-Cookie:x", "?utm_source=%00%0D%0ASet-Cookie%3Ax"),
        ("utm_source=\udc80", "?utm_source=%3F"),
        ("utm_source=%ff", "?utm_source=%EF%BF%BD"),
    ],
)
def test_query_strings(context_of, query, kept):
    context = context_of(
        rf.get("/shop", QUERY_STRING=query, HTTP_REFERER=f"https://a.example/b?{query}"), QUERY_PARAMETERS=["page"]
    )
    assert context.url == f"http://testserver/shop{kept}"
    assert context.path == "/shop"
    assert context.referrer == f"https://a.example/b{kept}"


RESET = "/reset/<uidb64>/<token>/"


def test_a_secret_path_that_django_has_resolved(configure, client):
    configure(recorder={})
    client.get("/reset/MQ/abc-def/?utm_source=mail")
    context = memory.events[-1].context
    assert context.path == RESET
    assert context.url == f"http://testserver{RESET}?utm_source=mail"
    assert context.route == "password_reset_confirm"


@pytest.mark.parametrize(
    ("captured", "path"),
    [({"token": "hush"}, "/old/<token>/"), ({"slug": "hush"}, "/old/hush/")],
    ids=["secret", "plain"],
)
def test_what_django_has_resolved_is_believed(context_of, captured, path):
    """Even if the path leads nowhere in the site's own routes."""
    request = rf.get("/old/hush/")
    request.resolver_match = ResolverMatch(None, (), captured, route=f"old/<{next(iter(captured))}>/")
    assert context_of(request).path == path


@pytest.mark.parametrize("path", ["/reset/MQ/abc-def/", "/reset/MQ/abc-def"], ids=["whole", "without its slash"])
def test_a_secret_path_before_django_has_resolved_it(context_of, path):
    context = context_of(rf.get(path))
    assert context.path == RESET
    assert context.url == f"http://testserver{RESET}"


def test_the_context_of_a_request_is_made_again_once_it_is_resolved(configure, client, settings):
    configure(recorder={})
    settings.MIDDLEWARE = ["pluginhost.middleware.TrackerMiddleware", "tests.test_context.tracks_early"]
    client.get("/reset/MQ/abc-def/")
    assert [(event.context.path, event.context.route) for event in memory.events] == [
        (RESET, None),
        (RESET, "password_reset_confirm"),
    ]


def tracks_early(get_response):
    def middleware(request):
        host.track(request, "early")
        return get_response(request)

    return middleware


@pytest.mark.parametrize(
    ("referrer", "kept"),
    [
        ("http://testserver/reset/MQ/abc-def/?q=1", f"http://testserver{RESET}"),
        ("http://testserver/reset/MQ/abc-def", f"http://testserver{RESET}"),
        ("http://testserver/reset/MQ/%61bc-def/", f"http://testserver{RESET}"),
        ("https://www.shop.example/reset/MQ/abc-def/", f"https://www.shop.example{RESET}"),
        ("http://TESTSERVER/order/", "http://testserver/order/"),
        ("https://ada:hush@a.example:8443/b", "https://a.example:8443/b"),
        ("https://a.example/b#access_token=hush", "https://a.example/b"),
        ("https://[2001:db8::1]:81/x", "https://[2001:db8::1]:81/x"),
        ("https://[2001:db8::1/x", None),
        ("https://a.example:port/x", None),
        ("android-app://com.example/", None),
        ("javascript:alert(1)", None),
        ("/relative", None),
        ("http:///x", None),
        ("", None),
        ("https://a.example/\r\nx\x00", "https://a.example/x"),
    ],
)
def test_referrers(context_of, referrer, kept):
    assert context_of(rf.get("/", HTTP_REFERER=referrer)).referrer == kept


@pytest.fixture
def under_prefix():
    set_script_prefix("/app/")
    yield
    set_script_prefix("/")


@pytest.mark.usefixtures("under_prefix")
def test_secret_paths_under_a_script_prefix(context_of):
    context = context_of(rf.get("/reset/MQ/abc/", SCRIPT_NAME="/app", HTTP_REFERER="http://testserver/app/reset/MQ/x/"))
    assert context.path == f"/app{RESET}"
    assert context.referrer == f"http://testserver/app{RESET}"
    context = context_of(rf.get("/", HTTP_REFERER="http://testserver/reset/MQ/hush/"))
    assert "hush" not in context.referrer


def by_asgi(path, root_path, referrer):
    """A request as a server for ASGI makes it: some leave the root path out of the path."""
    headers = [(b"host", b"testserver"), (b"referer", referrer.encode())]
    scope = {"type": "http", "method": "GET", "path": path, "root_path": root_path, "headers": headers}
    return ASGIRequest(scope, BytesIO())


@pytest.mark.parametrize(
    ("path", "root_path"),
    [("/app/reset/MQ/hush/", "/app"), ("/reset/MQ/hush/", "/app"), ("/app", "/app"), ("/app/", "/app/")],
)
@pytest.mark.parametrize("forced", [None, "/app"])
def test_secret_paths_under_a_root_path(context_of, settings, path, root_path, forced):
    settings.FORCE_SCRIPT_NAME = forced
    request = by_asgi(path, "" if forced else root_path, "http://testserver/app/reset/MQ/hush/")
    set_script_prefix("/app/")
    try:
        context = context_of(request)
    finally:
        set_script_prefix("/")
    assert context.referrer == f"http://testserver/app{RESET}"
    assert "hush" not in f"{context.path} {context.url}"


def test_a_secret_path_that_a_middleware_has_rewritten(context_of):
    request = rf.get("/reset/MQ/hush/")
    request.path_info = "/en" + request.path_info
    assert context_of(request).path == RESET


def test_a_secret_path_with_a_slash_too_many(context_of):
    context = context_of(rf.get("/", PATH_INFO="//reset/MQ/hush/", HTTP_REFERER="http://testserver//reset/MQ/hush/"))
    assert (context.path, context.referrer) == (RESET, f"http://testserver{RESET}")


def test_a_secret_path_of_a_request_made_by_hand(context_of):
    request = HttpRequest()
    request.path = "/reset/MQ/hush/"
    request.META = {"HTTP_HOST": "testserver", "HTTP_REFERER": "http://testserver/reset/MQ/hush/"}
    context = context_of(request)
    assert (context.path, context.referrer) == (RESET, f"http://testserver{RESET}")


@pytest.mark.usefixtures("under_prefix")
def test_a_resolved_secret_path_under_a_script_prefix(configure, client):
    configure(recorder={})
    client.get("/reset/MQ/abc/", SCRIPT_NAME="/app")
    assert memory.events[-1].context.path == f"/app{RESET}"


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/de/invited/hush/", "/de/invited/<token>/"),
        ("/fr/invited/hush", "/fr/invited/<token>/"),
        ("/invited/hush/", "/invited/<token>/"),
        ("/de/code/123", r"/de/code/(?P<code>\d+)$"),
    ],
)
@pytest.mark.parametrize("active", ["en", "de"])
def test_secret_paths_in_another_language(context_of, settings, path, pattern, active):
    settings.ROOT_URLCONF = "tests.site.translated_urls"
    settings.LANGUAGE_CODE = "en"
    with translation.override(active):
        context = context_of(rf.get(path, HTTP_REFERER=f"http://testserver{path}"))
        assert translation.get_language() == active
    assert context.path == pattern
    assert context.referrer == f"http://testserver{pattern}"


def test_the_routes_are_those_of_the_request(context_of, settings):
    path = "/invited/somebody/"
    assert context_of(rf.get(path)).path == path
    request = rf.get(path)
    request.urlconf = "tests.site.translated_urls"  # as a middleware for subdomains does
    assert context_of(request).path == "/invited/<token>/"
    assert context_of(rf.get(path)).path == path
    set_urlconf("tests.site.translated_urls")  # as it does without telling the request
    try:
        assert context_of(rf.get(path)).path == "/invited/<token>/"
    finally:
        set_urlconf(None)
    assert context_of(rf.get(path)).path == path
    settings.ROOT_URLCONF = "tests.site.translated_urls"
    assert context_of(rf.get(path)).path == "/invited/<token>/"


def test_a_secret_path_that_is_translated(context_of, settings):
    settings.ROOT_URLCONF = "tests.site.translated_urls"
    assert context_of(rf.get("/Montag/hush/")).path == "/Montag/hush/"  # no page in English
    with translation.override("de"):
        assert context_of(rf.get("/Montag/hush/")).path == "/Montag/<token>/"


def test_a_secret_path_of_letters_that_are_encoded_in_a_referrer(context_of, settings):
    settings.ROOT_URLCONF = "tests.site.translated_urls"
    referrer = "http://testserver/de/zur%C3%BCcksetzen/MQ/hush/"
    context = context_of(rf.get("/de/zurücksetzen/MQ/hush/", HTTP_REFERER=referrer))
    assert context.path == "/de/zurücksetzen/<uidb64>/<token>/"
    assert "hush" not in context.referrer + context.url


def test_which_arguments_are_secret_can_be_chosen(context_of):
    context = context_of(rf.get("/reset/MQ/abc/"), SECRET_ROUTE_ARGUMENTS=["slug"])
    assert context.path == "/reset/MQ/abc/"


def test_a_path_is_encoded_in_the_url(context_of):
    context = context_of(rf.get("/what%3F/a%23b/ü%00"))
    assert context.path == "/what?/a#b/ü"
    assert context.url == "http://testserver/what%3F/a%23b/%C3%BC%00"


def test_headers_are_cleaned_and_cut(context_of):
    agent = "Mozilla\x00\r\n\x1b[31m\ud800\u202e " + "x" * 10_000
    context = context_of(rf.get("/" + "p" * 5_000, HTTP_USER_AGENT=agent, HTTP_ACCEPT_LANGUAGE="\x00"))
    assert context.user_agent.startswith("Mozilla[31m x")
    assert len(context.user_agent) <= 512
    assert context.language is None
    assert len(context.path) == 2048
    assert len(context.url) == 2048


def test_a_host_that_is_not_allowed(context_of, settings):
    settings.ALLOWED_HOSTS = ["shop.example"]
    for host_header in ("evil.example", "bad_host!", ""):
        context = context_of(rf.get("/x/", HTTP_HOST=host_header))
        assert context.url is None
        assert context.path == "/x/"


def test_a_request_within_another(context_of):
    """As Django REST framework wraps them."""

    class Wrapped:
        def __init__(self, request):
            self._request = request

    assert context_of(Wrapped(rf.get("/wrapped"))).path == "/wrapped"


@pytest.mark.parametrize(
    ("path", "name"), [("/reset/MQ/x/", RESET), ("/" + "x" * 300, "/" + "x" * 199), ("/a%00", "/a")]
)
def test_a_page_without_a_title_is_named_by_its_path(configure, path, name):
    configure(recorder={})
    assert host.page(rf.get(path))
    assert host.page(rf.get(path), "Title")
    assert [(event.type, event.name) for event in memory.events] == [("page", name), ("page", "Title")]
    with pytest.raises(InvalidEvent, match="^name: "):
        host.track(rf.get(path), None)
    with pytest.raises(InvalidEvent, match="^name: "):
        host.page(None)


def test_the_context_is_made_once_for_all_events_of_a_request(configure, monkeypatch):
    made = []
    monkeypatch.setattr("pluginhost.drafting.context_of", lambda *args: made.append(args) or Context())
    configure(recorder={})
    request = rf.get("/")
    for name in "abc":
        host.track(request, name)
    assert len(made) == 1
