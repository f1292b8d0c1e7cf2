"""The middleware: where events wait, under WSGI and ASGI, and what the server counts as a page view."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.contrib.auth.models import User
from django.http import HttpResponse, JsonResponse
from django.test import AsyncClient, RequestFactory
from django.urls import set_script_prefix
from django.utils.decorators import async_only_middleware, sync_only_middleware

from pluginhost import buffer, host
from pluginhost.delivery import memory
from pluginhost.delivery.envelopes import VERSION, unpack
from pluginhost.exceptions import AsyncContextError
from pluginhost.middleware import TrackerMiddleware
from pluginhost.models import Envelope
from pluginhost.workers.worker import drain
from tests.samples import Filter, Recorder

transactional = pytest.mark.django_db(databases="__all__", transaction=True)
aget = async_to_sync(AsyncClient().get)


#: What Turbo sends for a page. For a part of one it adds Turbo-Frame.
TURBO = {"Sec-Fetch-Dest": "empty", "Accept": "text/html, application/xhtml+xml"}


def names():
    return [event.name for event in memory.events]


def written():
    """The events of each envelope, in order."""
    rows = Envelope.objects.order_by("id")
    return [[stored.event.name for stored in unpack(VERSION, bytes(row.payload))] for row in rows]


# --- one envelope a request ---


@transactional
@pytest.mark.parametrize("view", ["/twice/", "/atracked/"], ids=["sync view", "async view"])
@pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])
def test_the_events_of_a_request_are_one_envelope(database, configure, client, view, asgi):
    configure("outbox", recorder={})
    (aget if asgi else client.get)(view)
    assert written() == [["first", "second"] if view == "/twice/" else ["with await", "without await"]]
    assert buffer.current.get() is None


@sync_only_middleware
def sync_between(get_response):
    return lambda request: get_response(request)


@async_only_middleware
def async_between(get_response):
    async def middleware(request):
        return await get_response(request)

    return middleware


@transactional
@pytest.mark.parametrize("view", ["/twice/", "/atracked/"], ids=["sync view", "async view"])
@pytest.mark.parametrize(
    "chain",
    [
        ["sync_between", None],
        [None, "sync_between"],
        [None, "async_between"],
        ["async_between", None, "sync_between"],
        ["sync_between", None, "async_between", "sync_between"],
    ],
    ids=str,
)
def test_a_mixed_chain(configure, settings, view, chain):
    tracker = "pluginhost.middleware.TrackerMiddleware"
    settings.MIDDLEWARE = [f"tests.test_middleware.{name}" if name else tracker for name in chain]
    configure("outbox", recorder={})
    aget(view)
    assert len(written()) == 1
    assert len(written()[0]) == 2


def test_the_middleware_is_async_only_where_the_next_one_is(configure):
    async def view(request): ...

    configure(recorder={})
    assert iscoroutinefunction(TrackerMiddleware(view))
    assert not iscoroutinefunction(TrackerMiddleware(lambda request: None))


@transactional
@pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])
def test_a_failing_view_keeps_its_events(database, configure, client, asgi):
    configure("outbox", recorder={})
    with pytest.raises(RuntimeError, match="the view fails"):
        (aget if asgi else client.get)("/failing/")
    assert written() == [["before the failure"]]
    assert buffer.current.get() is None


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_middleware_within_that_raises_keeps_its_events(configure, asynchronous):
    def view(request):
        host.track(request, "before")
        raise LookupError

    async def aview(request):
        view(request)

    configure(recorder={})
    request = RequestFactory().get("/")
    with pytest.raises(LookupError):
        if asynchronous:
            async_to_sync(TrackerMiddleware(aview))(request)
        else:
            TrackerMiddleware(view)(request)
    assert names() == ["before"]
    assert buffer.current.get() is None


@transactional
def test_what_a_streamed_response_tracks_is_sent_at_once(database, configure, client):
    configure("outbox", recorder={})
    response = client.get("/streamed/")
    assert written() == [["before streaming"]]
    assert b"".join(response.streaming_content) == b"ab"
    assert written() == [["before streaming"], ["while streaming"]]


# --- async code ---


@transactional
def test_without_the_middleware_a_plain_call_in_async_code_is_an_error_if_strict(configure):
    configure("outbox", recorder={})

    async def view():
        host.track(None, "something")

    with pytest.raises(AsyncContextError, match="use the a-twin"):
        async_to_sync(view)()
    assert written() == []


@transactional
def test_without_the_middleware_a_plain_call_in_async_code_is_delivered_in_the_background(database, configure):
    configure("outbox", recorder={}, STRICT=False)

    async def view():
        assert host.track(None, "something")
        await asyncio.gather(*host._background)

    async_to_sync(view)()
    assert written() == [["something"]]
    drain(host.registry.runners, database)
    assert [event.name for event in Recorder.seen["recorder"]] == ["something"]


@transactional
def test_the_a_twins(database, configure):
    configure("outbox", recorder={})

    async def view():
        assert await host.atrack(None, "track", {"a": 1}, user_id=1)
        assert await host.apage(None, "page")
        assert await host.aidentify(None, {"a": 1})
        assert await host.aalias(None, "old", "new")

    async_to_sync(view)()
    assert written() == [["track"], ["page"], ["identify"], ["alias"]]


@transactional
def test_an_async_batch_is_one_envelope(database, configure):
    configure("outbox", recorder={})

    async def view():
        async with host.abatch():
            host.track(None, "first")
            await host.atrack(None, "second")
            await asyncio.sleep(0)
            assert host.track(None, "third")

    async_to_sync(view)()
    assert written() == [["first", "second", "third"]]
    assert buffer.current.get() is None


@transactional
def test_two_async_requests_at_a_time_do_not_mix(configure):
    configure("outbox", recorder={})

    async def block(name):
        async with host.abatch():
            for _ in range(3):
                host.track(None, name)
                await asyncio.sleep(0)

    async def both():
        await asyncio.gather(block("a"), block("b"))

    async_to_sync(both)()
    assert sorted(written()) == [["a"] * 3, ["b"] * 3]


# --- page views ---


def viewed(request, response):
    memory.events.clear()
    assert TrackerMiddleware(lambda request: response)(request) is response
    return [(event.type, event.name) for event in memory.events]


@pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])
def test_the_server_counts_page_views_if_asked_to(configure, client, asgi):
    configure(recorder={}, PAGE_VIEWS="server")
    (aget if asgi else client.get)("/reset/MQ/abc/?q=1")
    assert [(event.type, event.name) for event in memory.events] == [
        ("track", "home seen"),
        ("page", "/reset/<uidb64>/<token>/"),
    ]


@transactional
@pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])
@pytest.mark.parametrize("opted_out", [False, True])
def test_filters_of_page_views_may_use_the_database(configure, client, asgi, opted_out):
    """Under ASGI too, where the middleware itself runs in the event loop."""
    configure(filter={}, recorder={}, PAGE_VIEWS="server")
    if opted_out:
        User.objects.create_user("ada")
    Filter.answer = staticmethod(lambda request, user: not User.objects.exists())
    (aget if asgi else client.get)("/page/")
    assert [event.type for event in memory.events] == ([] if opted_out else ["page"])


def test_by_default_the_browser_counts_page_views(configure, client):
    configure(recorder={})
    client.get("/")
    assert names() == ["home seen"]


@pytest.mark.parametrize(
    ("make", "counted"),
    [
        (lambda rf: (rf.get("/shop/"), HttpResponse()), True),
        (lambda rf: (rf.get("/shop/"), HttpResponse(content_type="text/html")), True),
        (lambda rf: (rf.get("/administered/"), HttpResponse()), True),
        (lambda rf: (rf.post("/shop/"), HttpResponse()), False),
        (lambda rf: (rf.head("/shop/"), HttpResponse()), False),
        (lambda rf: (rf.get("/shop/"), HttpResponse(status=302)), False),
        (lambda rf: (rf.get("/shop/"), HttpResponse(status=404)), False),
        (lambda rf: (rf.get("/shop/"), HttpResponse(status=500)), False),
        (lambda rf: (rf.get("/shop/"), HttpResponse(status=304)), False),
        (lambda rf: (rf.get("/shop/"), JsonResponse({})), False),
        (lambda rf: (rf.get("/static/a.html"), HttpResponse()), False),
        (lambda rf: (rf.get("/media/a.html"), HttpResponse()), False),
        (lambda rf: (rf.get("/admin/"), HttpResponse()), False),
        (lambda rf: (rf.get("/admin/shop/"), HttpResponse()), False),
        (lambda rf: (rf.get("/shop/", headers={"Sec-Purpose": "prefetch;prerender"}), HttpResponse()), False),
        (lambda rf: (rf.get("/shop/", headers={"Accept": "text/html,*/*"}), HttpResponse(status=304)), True),
        (lambda rf: (rf.get("/shop/", headers={"Accept": "image/png"}), HttpResponse(status=304)), False),
        (lambda rf: (rf.get("/shop/", headers={"Sec-Fetch-Dest": "document"}), HttpResponse()), True),
        (lambda rf: (rf.get("/shop/", headers={"Sec-Fetch-Dest": "iframe"}), HttpResponse()), False),
        (lambda rf: (rf.get("/shop/", headers={"Sec-Fetch-Dest": "empty", "Accept": "*/*"}), HttpResponse()), False),
        (lambda rf: (rf.get("/shop/", headers={"HX-Request": "true"}), HttpResponse()), False),
        (lambda rf: (rf.get("/shop/", headers={"HX-Request": "true", "HX-Boosted": "true"}), HttpResponse()), True),
        (lambda rf: (rf.get("/shop/", headers=TURBO), HttpResponse()), True),
        (lambda rf: (rf.get("/shop/", headers={**TURBO, "Turbo-Frame": "basket"}), HttpResponse()), False),
    ],
)
def test_what_is_a_page_view(configure, settings, make, counted):
    settings.MEDIA_URL = "/media/"
    configure(recorder={}, PAGE_VIEWS="server", EXCLUDE_PATHS=["/admin/"])
    request, response = make(RequestFactory())
    assert viewed(request, response) == ([("page", request.path)] if counted else [])


def test_page_views_of_a_site_without_static_files(configure, settings):
    settings.STATIC_URL = None
    configure(recorder={}, PAGE_VIEWS="server")
    assert viewed(RequestFactory().get("/static/"), HttpResponse()) == [("page", "/static/")]


def test_page_views_under_a_script_prefix(configure):
    """MEDIA_URL is not set here; it reads as the prefix itself, which must not exclude every page."""
    configure(recorder={}, PAGE_VIEWS="server", EXCLUDE_PATHS=["/admin/"])
    rf = RequestFactory(SCRIPT_NAME="/app")
    set_script_prefix("/app/")
    try:
        assert viewed(rf.get("/shop/"), HttpResponse()) == [("page", "/app/shop/")]
        assert viewed(rf.get("/admin/"), HttpResponse()) == []
    finally:
        set_script_prefix("/")


@pytest.mark.parametrize("path", ["/" + "x" * 400, "/%00", "/%0d%0a", "//"])
def test_no_path_breaks_a_page(configure, path):
    configure(recorder={}, PAGE_VIEWS="server", ANONYMOUS_COOKIE="visitor")
    assert len(viewed(RequestFactory().get(path), HttpResponse())) == 1
