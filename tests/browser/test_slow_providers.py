"""A provider that fails or does not answer: the page does not wait for it, and no error is ours."""

from __future__ import annotations

import pytest

from pluginhost import host
from tests.browser import providers
from tests.browser.site import views


@pytest.fixture(autouse=True)
def enabled(configure, stand_in):
    configure(kissmetrics=providers.kissmetrics(stand_in), piwik=providers.piwik(stand_in))


@pytest.fixture(autouse=True)
def only_theirs(visitor, stand_in):
    """Errors may be of the providers' addresses alone, and no exception among them."""
    visitor.excuse(rf"^console: .*{stand_in.url}")


@pytest.fixture(params=["hang", "500", "garbage", "reset", "half"])
def failing(request, stand_in):
    """All scripts and all hits fail in this way."""
    for provider in stand_in.PROVIDERS:
        stand_in.fail(provider, request.param, scripts=True, keep=False)


def test_the_page_is_ready_without_the_provider(visitor, site, failing):
    views.to_do.append(lambda request: host.track_client(request, "Paid"))
    tab = visitor.tab("/page/", until="domcontentloaded")
    assert tab.js("own") == ["first", "last", "ready"]
    assert tab.js("[_kmq, _paq].map((queue) => queue.some((call) => call.includes('Paid')))") == [True, True]
    tab.open("/plain/")


def test_hits_that_fail_are_nobodys_business(visitor, stand_in, site):
    for provider in stand_in.PROVIDERS:
        stand_in.fail(provider, "reset")
    views.to_do.append(lambda request: host.track_client(request, "Paid"))
    tab = visitor.tab("/page/")
    tab.wait_for(providers.READY)
    assert tab.js("own") == ["first", "last", "ready"]
    stand_in.wait_for(n=3, kept=False)
