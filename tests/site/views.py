from __future__ import annotations

import os
from contextlib import suppress

from django.contrib.auth import authenticate, login
from django.db import connections, transaction
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.template import RequestContext, Template
from django.views import View

from pluginhost import host, track_event
from tests.routers import Chosen
from tests.site.models import Order


def home(request: HttpRequest, **captured: str) -> HttpResponse:
    host.track(request, "home seen", {"plan": "pro"})
    return HttpResponse("home")


def twice(request: HttpRequest) -> HttpResponse:
    host.track(request, "first")
    host.track(request, "second")
    return HttpResponse("twice")


def tracked(request: HttpRequest) -> HttpResponse:
    """Says which events it has tracked: one in a transaction, which is committed, and one that waits for the answer."""
    with transaction.atomic(using=Chosen.alias or "default"):
        ids = [host.track(request, "in a transaction")]
    return HttpResponse(f"{os.getpid()} {ids[0]} {host.track(request, 'in the request')}")


def order(request: HttpRequest) -> HttpResponse:
    """Saves an order and tracks it, in one transaction; ``?end=`` says how the transaction ends."""
    end = request.GET.get("end", "commit")
    using = Chosen.alias or "default"
    try:
        with transaction.atomic(using=using):
            made = Order.objects.create(number="42")
            ENDINGS[end](request, made, using)
    except _Undone:
        return HttpResponse("undone")
    return HttpResponse("paid")


class _Undone(Exception):
    pass


def _commit(request: HttpRequest, made: Order, using: str) -> None:
    host.track(request, "order paid", subject=made, value=12.5, key=f"order:{made.pk}")


def _rollback(request: HttpRequest, made: Order, using: str) -> None:
    _commit(request, made, using)
    raise _Undone


def _savepoint(request: HttpRequest, made: Order, using: str) -> None:
    with suppress(_Undone), transaction.atomic(using=using):
        _rollback(request, made, using)


def _manual(request: HttpRequest, made: Order, using: str) -> None:
    # Its name since Django 6.1.
    create = getattr(transaction, "savepoint_create", None) or transaction.savepoint
    savepoint = create(using=using)
    _commit(request, made, using)
    transaction.savepoint_rollback(savepoint, using=using)


def _batch(request: HttpRequest, made: Order, using: str) -> None:
    with host.batch():
        host.track(request, "item sold")
        host.track(request, "item sold")
        _savepoint(request, made, using)


def _set_rollback(request: HttpRequest, made: Order, using: str) -> None:
    _commit(request, made, using)
    transaction.set_rollback(True, using=using)


ENDINGS = {
    "commit": _commit,
    "rollback": _rollback,
    "savepoint": _savepoint,
    "manual": _manual,
    "batch": _batch,
    "set_rollback": _set_rollback,
}


@track_event("listed", {"kind": "list"})
def decorated(request: HttpRequest) -> HttpResponse:
    if "missing" in request.GET:
        raise Http404
    return HttpResponse("listed", status=int(request.GET.get("status", 200)))


@track_event("alisted", lambda request, response: {"status": response.status_code})
async def adecorated(request: HttpRequest) -> HttpResponse:
    return HttpResponse("listed")


@track_event("class seen")
class Seen(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("seen")


class Method(View):
    @track_event("method seen")
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("seen")


@track_event("async class seen")
class AsyncSeen(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("seen")


async def atracked(request: HttpRequest) -> HttpResponse:
    await host.atrack(request, "with await")
    host.track(request, "without await")
    return HttpResponse("async")


def sign_in(request: HttpRequest) -> HttpResponse:
    host.track(request, "before")
    login(request, authenticate(request, username="ada", password="secret"))
    host.track(request, "after")
    return HttpResponse("in")


def who(request: HttpRequest) -> HttpResponse:
    if "user" in request.GET:
        str(request.user)
    if "session" in request.GET:
        request.session.get("anything")
    host.track(request, "who")
    return HttpResponse("who")


def streamed(request: HttpRequest) -> StreamingHttpResponse:
    def parts():
        yield "a"
        host.track(None, "while streaming")
        yield "b"

    host.track(request, "before streaming")
    return StreamingHttpResponse(parts())


def page(request: HttpRequest) -> HttpResponse:
    template = Template('{% load pluginhost %}<head>{% render_client "head" %}</head>{% render_client "body" %}')
    return HttpResponse(template.render(RequestContext(request)))


def failing(request: HttpRequest) -> HttpResponse:
    host.track(request, "before the failure")
    raise RuntimeError("the view fails")


def broken_transaction(request: HttpRequest) -> HttpResponse:
    """Tracks in a transaction that PostgreSQL has doomed already."""
    using = Chosen.alias or "default"
    try:
        with transaction.atomic(using=using):
            Order.objects.create(number="lost")
            try:
                with connections[using].cursor() as cursor:
                    cursor.execute("SELECT * FROM no_such_table")
            except Exception:
                host.track(request, "in the ruins")
            raise _Undone
    except _Undone:
        return HttpResponse("undone")
