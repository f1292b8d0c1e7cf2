"""A small site: pages with and without snippets, log-ins, and what a browser or a cache may keep."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model, login, logout
from django.http import HttpResponse, HttpResponseRedirect
from django.template import RequestContext, Template
from django.utils.cache import patch_cache_control
from django.views.decorators.csrf import csrf_exempt, ensure_csrf_cookie

from pluginhost.html import csp_nonce

if TYPE_CHECKING:
    from django.http import HttpRequest

#: ``own`` is how far the page's own script has come; it stands after the snippets, as most do.
PAGE = Template("""{% load pluginhost %}<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ title }}</title>
<script nonce="{{ nonce }}">
window.own = ["first"];
document.addEventListener("DOMContentLoaded", function () { window.own.push("ready") });
</script>
{% render_client "head" %}
</head>
<body>
<h1>{{ title }}</h1>
{% render_client "body" %}
<script nonce="{{ nonce }}">window.own.push("last")</script>
</body>
</html>
""")

CHOICE = Template("""<!doctype html><title>Choose</title>
<form id="choice" method="post" action="/consent/">{% csrf_token %}
<input type="checkbox" name="purpose" value="analytics"><input type="checkbox" name="purpose" value="marketing">
<input type="hidden" name="next" value="/plain/"><button>Save</button></form>
""")

#: What the tests ask the pages to do: calls of this with the request, each once.
to_do: list[Any] = []
#: The paths of the pages that were rendered; what came out of a cache is not among them.
rendered: list[str] = []
#: What pages have sent to ``/received/``.
received: list[Any] = []


def _page(request: HttpRequest, title: str) -> HttpResponse:
    rendered.append(request.path)
    return HttpResponse(PAGE.render(RequestContext(request, {"title": title, "nonce": csp_nonce(request) or ""})))


def page(request: HttpRequest, name: str = "") -> HttpResponse:
    """A page. Its title is ``?title=`` or, where that is too long, ``request.title``; a browser may keep it ``?for=``
    seconds."""
    while to_do:
        to_do.pop(0)(request)
    title = getattr(request, "title", None) or request.GET.get("title") or f"Page {name}"
    response = _page(request, title)
    if "for" in request.GET:
        patch_cache_control(response, max_age=int(request.GET["for"]))
    return response


def act(request: HttpRequest) -> HttpResponse:
    """Do what is to be done, and show the result on the next page."""
    while to_do:
        to_do.pop(0)(request)
    return HttpResponseRedirect(request.GET.get("next", "/page/"))


def sign_in(request: HttpRequest, name: str) -> HttpResponse:
    login(request, get_user_model().objects.get_or_create(username=name)[0])
    return HttpResponseRedirect(request.GET.get("next", "/page/"))


def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponseRedirect(request.GET.get("next", "/page/"))


def plain(request: HttpRequest) -> HttpResponse:
    """A page without snippets."""
    return HttpResponse("<!doctype html><title>Plain</title>")


@ensure_csrf_cookie
def choose(request: HttpRequest) -> HttpResponse:
    """A form for the view of ``consent``."""
    return HttpResponse(CHOICE.render(RequestContext(request)))


@csrf_exempt
def receive(request: HttpRequest) -> HttpResponse:
    received.append(json.loads(request.body))
    return HttpResponse(status=204)
