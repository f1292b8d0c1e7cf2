"""A waiting event is sent once, however often the browser shows the page that holds it."""

from __future__ import annotations

import pytest

from pluginhost import host
from tests.browser import providers
from tests.browser.site import views

#: A page that the browser may show again without asking.
PAGE = "/page/thanks/?for=600"
SENT = "pluginhost:echo:sent"


@pytest.fixture(autouse=True)
def waiting(configure, site):
    configure(echo={})
    views.to_do.append(lambda request: host.track_client(request, "order paid"))


def events(tab):
    return [call[2] for call in tab.js("echoed") if call[1] == "event"]


def holds_event(tab):
    return "order paid" in tab.html()


def test_in_two_tabs_with_the_same_page(visitor, site):
    first, second = visitor.tab(PAGE), visitor.tab(PAGE)
    assert site.asked.count(PAGE) == 1
    assert holds_event(second)
    assert (events(first), events(second)) == (["order paid"], [])


def test_in_a_duplicated_tab(visitor, site):
    first = visitor.tab(PAGE)
    second = first.duplicate()
    assert site.asked.count(PAGE) == 1
    assert holds_event(second)
    assert (events(first), events(second)) == (["order paid"], [])


def test_with_back_and_forward(visitor, site):
    tab = visitor.tab("/plain/")
    tab.open(PAGE)
    assert events(tab) == ["order paid"]
    tab.back()
    tab.forward()
    assert site.asked.count(PAGE) == 1
    assert holds_event(tab)
    assert events(tab) == []


def test_with_a_reload(visitor):
    tab = visitor.tab(PAGE)
    assert events(tab) == ["order paid"]
    tab.reload()
    assert events(tab) == []


def test_after_a_redirect(visitor):
    """It waits in the session until a page is rendered."""
    tab = visitor.tab(f"/act/?next={PAGE}")
    assert tab.path == "/page/thanks/"
    assert events(tab) == ["order paid"]
    assert events(visitor.tab("/page/next/")) == []


def test_at_the_providers(visitor, configure, settings, stand_in, settle, site):
    configure(kissmetrics=providers.kissmetrics(stand_in), piwik=providers.piwik(stand_in))
    settings.BROWSER_IGNORES_VARY = True  # their scripts set cookies, and a browser then asks for the page anew
    tab = visitor.tab(PAGE)
    settle(tab)
    copy = tab.duplicate()
    tab.open("/plain/")
    tab.back()
    settle(tab, copy, visitor.tab(PAGE))
    assert site.asked.count(PAGE) == 1
    hits = stand_in.received(kind="event", kept=None)
    assert sorted((hit.provider, hit.name) for hit in hits) == [
        ("kissmetrics", "order paid"),
        ("matomo", "order paid"),
    ]


def test_each_time_that_it_is_tracked(visitor):
    """The same thing again is another event."""
    tab = visitor.tab("/page/")
    for _ in range(2):
        views.to_do.append(lambda request: host.track_client(request, "order paid"))
        views.to_do.append(lambda request: host.track_client(request, "order paid"))
        tab.open("/page/")
        assert events(tab) == ["order paid", "order paid"]


def test_with_anything_in_its_storage(visitor):
    tab = visitor.tab("/plain/")
    for stored in ("{{{", '"text"', '{"length": 3}', "null", "7", "[[], null, {}]"):
        tab.js("([key, value]) => localStorage.setItem(key, value)", [SENT, stored])
        views.to_do[:] = [lambda request: host.track_client(request, "order paid")]
        page = PAGE + "&with=" + str(len(stored))
        tab.open(page)
        assert events(tab) == ["order paid"]
        tab.open("/plain/")
        tab.back()
        assert holds_event(tab)
        assert events(tab) == []


def test_storage_does_not_grow_for_ever(visitor):
    visitor.tab("/plain/").js(
        "(key) => localStorage.setItem(key, JSON.stringify(Array.from({length: 5000}, (_, i) => 'id ' + i)))", SENT
    )
    tab = visitor.tab(PAGE)
    kept = tab.js("(key) => JSON.parse(localStorage.getItem(key))", SENT)
    assert events(tab) == ["order paid"]
    assert len(kept) < 1000
    assert kept[-2] == "id 4999"


def test_without_a_storage_it_is_sent_nonetheless(visitor, settings):
    """In a sandbox the browser refuses storage and cookies."""
    settings.BROWSER_POLICY = "sandbox allow-scripts"
    tab = visitor.tab(PAGE)
    assert tab.js("(() => { try { localStorage } catch (error) { return error.name } })()") == "SecurityError"
    assert events(tab) == ["order paid"]


def test_with_a_full_storage_it_is_sent_nonetheless(visitor):
    """Twice, if the page is shown again: nothing can be remembered."""
    tab = visitor.tab("/plain/")
    tab.js("""for (let size = 2 ** 23; size >= 1; size /= 2)
        for (let i = 0; ; i++) try { localStorage.setItem(size + " " + i, "x".repeat(size)) } catch { break }""")
    tab.open(PAGE)
    assert tab.js("(key) => localStorage.getItem(key)", SENT) is None
    assert events(tab) == ["order paid"]


def test_a_page_that_is_only_prefetched_does_not_take_it(visitor, site):
    tab = visitor.tab("/act/?next=/plain/")
    tab.js("""new Promise((loaded) => document.head.append(
        Object.assign(document.createElement("link"), {rel: "prefetch", href: "/page/perhaps/", onload: loaded})))""")
    assert "/page/perhaps/" in site.asked
    tab.open("/page/")
    assert events(tab) == ["order paid"]
