"""A browser, a site and stand-ins for the providers."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command

from demo.standin import StandIn
from tests import chromium
from tests.browser import providers
from tests.browser.server import Site
from tests.browser.site import views

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_django.fixtures import SettingsWrapper

HERE = Path(__file__).parent

sys.path.append(str(HERE / "installed"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = pytest.mark.skip(reason=f"no Chromium: install one, or set {chromium.VARIABLE}")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if chromium.find() is None:
                item.add_marker(missing)


@pytest.fixture(scope="session")
def browser() -> Iterator[chromium.Chromium]:
    path = chromium.find()
    assert path is not None
    with chromium.Chromium(path) as browser:
        yield browser


@pytest.fixture(scope="session")
def _site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture
def site(_site: Site, settings: SettingsWrapper) -> Iterator[Site]:
    """The site of this folder, without a Content-Security-Policy. Sessions are cookies, so that few tests need a
    database."""
    settings.ROOT_URLCONF = "tests.browser.site.urls"
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    settings.BROWSER_POLICY = None
    settings.BROWSER_USER = None
    settings.BROWSER_IGNORES_VARY = False
    settings.MIDDLEWARE = [
        "tests.browser.site.middleware.careless_cache",
        *settings.MIDDLEWARE,
        "tests.browser.site.middleware.policy",
        "tests.browser.site.middleware.user",
    ]
    yield _site
    _site.wait()
    _site.asked.clear()
    views.to_do.clear()
    views.received.clear()
    views.rendered.clear()


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    """KISSmetrics and Matomo."""
    with StandIn() as stand_in:
        yield stand_in


@pytest.fixture
def visitors() -> list[chromium.Visitor]:
    """All visitors of the test."""
    return []


@pytest.fixture
def new_visitor(
    browser: chromium.Chromium, site: Site, visitors: list[chromium.Visitor]
) -> Iterator[Callable[..., chromium.Visitor]]:
    """Somebody with a browser of their own, who must not meet any error by the end of the test."""

    def new_visitor(**options: Any) -> chromium.Visitor:
        visitors.append(browser.visitor(site.url, **options))
        return visitors[-1]

    yield new_visitor
    for visitor in visitors:
        visitor.close()
    assert [visitor.unexcused() for visitor in visitors] == [[] for _ in visitors]


@pytest.fixture
def visitor(new_visitor: Callable[..., chromium.Visitor]) -> chromium.Visitor:
    return new_visitor()


@pytest.fixture
def settle(visitors: list[chromium.Visitor], stand_in: StandIn) -> Callable[..., None]:
    """Wait until the providers' scripts have done all that these pages told them, and the providers know of it."""

    def settle(*tabs: chromium.Tab) -> None:
        for tab in tabs:
            tab.wait_for(providers.READY)
        sent = sum(providers.is_hit(url, stand_in) for visitor in visitors for url in visitor.requests)
        stand_in.wait_for(n=sent, kept=None, origin="browser")

    return settle


@pytest.fixture
def drain() -> Callable[[], None]:
    """Let a worker deliver all that waits in the outbox."""
    return lambda: call_command("pluginhost", "worker", "--drain", stdout=io.StringIO())
