"""A trivial page, without tracking and with one call of each contestant."""

from __future__ import annotations

import os
import uuid
from functools import cache
from typing import TYPE_CHECKING, Any

from django.db import connection
from django.http import HttpResponse

from benchmarks import sample

if TYPE_CHECKING:
    from django.http import HttpRequest


PAGE = "<!doctype html><title>Paid</title><p>Thank you.</p>"


def page() -> HttpResponse:
    """Says which process made it, so that visitors can spread themselves evenly."""
    return HttpResponse(PAGE, headers={"Content-Length": str(len(PAGE)), "X-Process": str(os.getpid())})


def plain(request: HttpRequest, number: int) -> HttpResponse:  # noqa: ARG001
    return page()


def with_host(request: HttpRequest, number: int) -> HttpResponse:  # noqa: ARG001
    from pluginhost import host  # here: the site is measured without the host too

    host.track(request, sample.NAME, sample.PROPERTIES, user_id=sample.USER_ID)
    return page()


#: As many bytes as an event of ours has.
PAYLOAD = b"[%s]" % (b" " * 900)


def with_insert(request: HttpRequest, number: int) -> HttpResponse:  # noqa: ARG001
    """What remains of an outbox when everything else is taken away."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO pluginhost_envelope (envelope_id, version, lanes, n, payload) VALUES (%s, %s, %s, %s, %s)",
            (uuid.uuid4().hex, 1, "one,two,three,four", 1, PAYLOAD),
        )
    return page()


@cache
def segment() -> Any:
    from segment.analytics import Client

    return Client("key", host=os.environ["BENCHMARKS_RECEIVER"])


def with_segment(request: HttpRequest, number: int) -> HttpResponse:  # noqa: ARG001
    segment().track(sample.USER_ID, sample.NAME, sample.PROPERTIES, sample.CONTEXT)
    return page()


def with_celery(request: HttpRequest, number: int) -> HttpResponse:  # noqa: ARG001
    from benchmarks.shop.tasks import deliver

    deliver.delay(sample.USER_ID, sample.NAME, sample.PROPERTIES, sample.CONTEXT)
    return page()
