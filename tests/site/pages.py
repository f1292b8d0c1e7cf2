"""Views whose pages hold what plugins add: plain, cached, streamed, asynchronous, and what leads to them."""

from __future__ import annotations

import asyncio
from copy import copy
from typing import TYPE_CHECKING, Any

from django.contrib.auth import alogout, login, logout
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.template import engines
from django.template.response import TemplateResponse
from django.urls import path
from django.views.decorators.cache import cache_control, cache_page

from pluginhost import host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

HEAD = '{% load pluginhost %}<head>{% render_client "head" %}</head>'
BODY = '{% load pluginhost %}<body>{% render_client "body" %}</body>'


def rendered(request: HttpRequest, source: str = HEAD + BODY) -> str:
    return str(engines["django"].from_string(source).render({}, request))


def track(request: HttpRequest) -> None:
    """Let the browser send what the query or the form names."""
    for name in [*request.GET.getlist("name"), *request.POST.getlist("name")]:
        host.track_client(request, name, {"from": request.path})


def copied(request: HttpRequest) -> HttpResponse:
    """What some apps do: give a template, or another view, a copy of the request."""
    other = copy(request)
    host.track(other, "copied")
    return HttpResponse(rendered(other))


def signing_in_over(request: HttpRequest) -> HttpResponse:
    """A log-in as another user, without a log-out before."""
    host.track(request, "before")
    if "out" in request.GET:
        logout(request)
    login(request, User.objects.get(username=request.GET["as"]), "django.contrib.auth.backends.ModelBackend")
    host.track(request, "after")
    return HttpResponse(rendered(request))


def signing_in_by_token(request: HttpRequest) -> HttpResponse:
    request.user = User.objects.get(username=request.GET["as"])
    user_logged_in.send(sender=User, request=request, user=request.user)
    host.track(request, "signed in")
    return HttpResponse("in")


def plain(request: HttpRequest) -> HttpResponse:
    track(request)
    return HttpResponse(rendered(request), status=int(request.GET.get("status", 200)))


def form(request: HttpRequest) -> HttpResponse:
    track(request)
    return HttpResponseRedirect("/pages/plain/")


def templated(request: HttpRequest) -> HttpResponse:
    track(request)
    return TemplateResponse(request, engines["django"].from_string(HEAD + BODY))


def streamed(request: HttpRequest) -> StreamingHttpResponse:
    """A page that is rendered while it is sent; events named ``late`` are tracked then."""

    def parts() -> Iterator[str]:
        for name in request.GET.getlist("late"):
            host.track_client(request, name)
        yield rendered(request, HEAD)
        yield rendered(request, BODY)
        for name in request.GET.getlist("after"):
            host.track_client(request, name)

    track(request)
    return StreamingHttpResponse(parts(), content_type=request.GET.get("type"))


async def astreamed(request: HttpRequest) -> StreamingHttpResponse:
    for name in request.GET.getlist("name"):
        await host.atrack_client(request, name)

    async def parts() -> AsyncIterator[str]:
        yield await host.arender(request)
        await asyncio.sleep(0)
        yield await host.arender(request, "body")

    return StreamingHttpResponse(parts())


async def streamed_in_loop(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        yield rendered(request)

    return StreamingHttpResponse(parts())


async def in_loop(request: HttpRequest) -> HttpResponse:
    """Renders where the database can't be asked."""
    return HttpResponse(rendered(request))


async def in_thread(request: HttpRequest) -> HttpResponse:
    for name in request.GET.getlist("name"):
        await host.atrack_client(request, name)
    return HttpResponse(await host.arender(request) + await host.arender(request, "body"))


async def tracked_in_loop(request: HttpRequest) -> HttpResponse:
    host.track_client(request, "in the loop")
    return HttpResponse("done")


def signing_out(request: HttpRequest) -> HttpResponse:
    if "user" in request.GET:
        str(request.user)
    if "track" in request.GET:
        host.track(request, "signed out")
    logout(request)
    if "track" in request.GET:
        host.track(request, "after")
    return HttpResponse(rendered(request) if "page" in request.GET else "out")


async def asigning_out(request: HttpRequest) -> HttpResponse:
    await alogout(request)
    return HttpResponse("out")


class Wrapped:
    """The request as Django REST framework wraps it."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


def api_signing_out(request: HttpRequest) -> HttpResponse:
    logout(Wrapped(request))  # type: ignore[arg-type]
    return JsonResponse({})


def api_page(request: HttpRequest) -> HttpResponse:
    host.track_client(Wrapped(request), "wrapped")  # type: ignore[arg-type]
    return HttpResponse(host.render(Wrapped(request)))  # type: ignore[arg-type]


def json(request: HttpRequest) -> HttpResponse:
    return JsonResponse({})


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(iter([b"<p>"]), content_type="text/html")


urlpatterns = [
    path("plain/", plain),
    path("form/", form),
    path("templated/", templated),
    path("cached/", cache_page(600)(plain)),
    path("cached-templated/", cache_page(600)(templated)),
    path("public/", cache_control(public=True, max_age=600)(plain)),
    path("streamed/", streamed),
    path("astreamed/", astreamed),
    path("streamed-in-loop/", streamed_in_loop),
    path("in-loop/", in_loop),
    path("in-thread/", in_thread),
    path("tracked-in-loop/", tracked_in_loop),
    path("copied/", copied),
    path("copied-cached/", cache_page(600)(copied)),
    path("sign-in-over/", signing_in_over),
    path("sign-in-by-token/", signing_in_by_token),
    path("sign-out/", signing_out),
    path("asign-out/", asigning_out),
    path("api/sign-out/", api_signing_out),
    path("api/page/", api_page),
    path("json/", json),
    path("file/", file),
]
