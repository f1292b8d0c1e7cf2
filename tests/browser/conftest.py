"""A browser, a site and stand-ins for the providers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from demo.standin import StandIn
from tests import chromium
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
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "tests.browser.site.middleware.policy",
        "tests.browser.site.middleware.user",
    ]
    yield _site
    _site.wait()
    _site.asked.clear()
    views.to_do.clear()
    views.received.clear()


@pytest.fixture(scope="session")
def _stand_in() -> Iterator[StandIn]:
    with StandIn() as stand_in:
        yield stand_in


@pytest.fixture
def stand_in(_stand_in: StandIn) -> Iterator[StandIn]:
    """KISSmetrics and Matomo."""
    yield _stand_in
    _stand_in.mend()
    _stand_in.clear()


@pytest.fixture
def new_visitor(browser: chromium.Chromium, site: Site) -> Iterator[Callable[..., chromium.Visitor]]:
    """Somebody with a browser of their own, who must not meet any error by the end of the test."""
    visitors: list[chromium.Visitor] = []

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
