"""A trivial page, without tracking and with one call of each contestant."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

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
