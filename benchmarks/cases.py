"""The hot path, taken apart for the profiler and for counting instructions. Runs within a booted site.

Each case prepares itself, and gives a function that does its work so many times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from benchmarks import sample
from benchmarks.boot import FILTERS, four
from benchmarks.filling import PRODUCTS, fill, fill_with_copies

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

IN_A_BATCH = 20
LANES = ("one", "two", "three", "four")


class Case(NamedTuple):
    what: str
    plugins: Callable[[], dict[str, dict[str, Any]]]
    prepare: Callable[[int], Callable[[], None]]
    """Of so many events, the function that does the work."""
    events: int
    """Events of one measured round."""


def _track(events: int) -> Callable[[], None]:
    from pluginhost import host

    requests = iter(sample.requests(events))

    def act() -> None:
        for request in requests:
            host.track(request, sample.NAME, sample.PROPERTIES)

    return act


def _batch(events: int) -> Callable[[], None]:
    from pluginhost import host

    requests = iter(sample.requests(events // IN_A_BATCH))

    def act() -> None:
        for request in requests:
            with host.batch():
                for _ in range(IN_A_BATCH):
                    host.track(request, sample.NAME, sample.PROPERTIES)

    return act


def _draft(events: int) -> Callable[[], None]:
    from pluginhost import host
    from pluginhost.buffer import Buffer

    requests = iter(sample.requests(events))

    def act() -> None:
        waiting = Buffer(lambda *_: True, "default")
        for request in requests:
            host.track(request, sample.NAME, sample.PROPERTIES)
        waiting.close()

    return act


def _filter(events: int) -> Callable[[], None]:
    from pluginhost import host
    from pluginhost.filtering import verdict

    requests = iter(sample.requests(events))
    asked = host.registry.filters

    def act() -> None:
        for request in requests:
            verdict(asked, request, None)

    return act


def _page(path: str) -> Callable[[int], Callable[[], None]]:
    """The site is asked for a page, from the server's call to the end of the answer."""

    def prepare(events: int) -> Callable[[], None]:
        from django.core.wsgi import get_wsgi_application

        application = get_wsgi_application()
        asked = iter([{**request.environ, "PATH_INFO": path} for request in sample.requests(events, user=False)])

        def act() -> None:
            for environ in asked:
                answer = application(environ, lambda *_: None)
                assert answer.status_code == 200
                answer.close()

        return act

    return prepare


def _work(events: int) -> Callable[[], None]:
    from pluginhost import host
    from pluginhost.delivery.intake import take
    from pluginhost.delivery.work import step

    runners = list(host.registry.runners.values())
    fill_with_copies(events, ",".join(LANES))

    def act() -> None:
        take("default")
        for runner in runners:
            step(runner, "default")

    return act


def _fold(events: int) -> Callable[[], None]:
    from benchmarks.shop.models import Product
    from pluginhost import host
    from pluginhost.delivery.intake import take
    from pluginhost.delivery.work import step

    Product.objects.bulk_create((Product(pk=pk + 1) for pk in range(PRODUCTS)), ignore_conflicts=True)
    runner = host.registry.runners["timeseries"]
    fill(events, "timeseries")

    def act() -> None:
        take("default")
        step(runner, "default")

    return act


def _segment(events: int) -> Callable[[], None]:
    from segment.analytics import Client

    client = Client("key", send=False, max_queue_size=events)  # starts no thread
    client.send = True

    def act() -> None:
        for _ in range(events):
            client.track(sample.USER_ID, sample.NAME, sample.PROPERTIES, sample.CONTEXT)

    return act


CASES = {
    "track": Case("one host.track in a transaction, a request each", four, _track, 200),
    "batch": Case("one of 20 events in host.batch, in a transaction", four, _batch, 400),
    "draft": Case("the same as track, without sealing and INSERT", four, _draft, 200),
    "page": Case("a page with the middleware and one host.track", four, _page("/host/17/"), 200),
    "middleware": Case("the same page with the middleware, and nothing tracked", four, _page("/plain/17/"), 200),
    "plain": Case("the same page without the host's middleware", dict, _page("/plain/17/"), 200),
    "segment": Case("one call of Segment's track, nothing uploads", dict, _segment, 200),
    "filters": Case("bots and consent asked for a request", lambda: FILTERS, _filter, 400),
    "work": Case(
        "one event of a batch of 500 through a worker and four lanes that do nothing",
        lambda: {lane: {"PLUGIN": "nothing"} for lane in LANES},
        _work,
        500,
    ),
    "fold": Case("one event of a batch of 500 from the outbox to its counter", lambda: {"timeseries": {}}, _fold, 500),
}

#: Those that run within one transaction, as in a view.
IN_TRANSACTION = ("track", "batch", "draft")
