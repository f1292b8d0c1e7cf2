"""Who may not be tracked is not: exactly the snippets that may are in the page, and exactly those providers hear."""

from __future__ import annotations

import pytest

from pluginhost import host
from tests.browser import providers
from tests.browser.site import views
from tests.samples import Recorder

pytestmark = pytest.mark.django_db(transaction=True)

CHOICE = "pluginhost_consent"
ALL, STATISTICS, NOTHING = "1:analytics.marketing", "1:analytics", "1:"
OPTED_OUT = "4711003"
ROBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


def opted_out(user):
    return user.pk == OPTED_OUT


@pytest.fixture(autouse=True)
def enabled(configure, stand_in):
    """KISSmetrics is for marketing, Matomo for analytics, and ``echo`` is necessary."""
    configure(
        "outbox",
        consent={"OPT_OUT": "tests.browser.test_allowed.opted_out"},
        bots={},
        kissmetrics=providers.kissmetrics(stand_in),
        piwik=providers.piwik(stand_in),
        echo={"PURPOSE": "necessary"},
    )


def track(name):
    """Let the next page track it in both ways."""
    views.to_do.append(lambda request: host.track(request, name, user_id="7"))
    views.to_do.append(lambda request: host.track_client(request, name))


def snippets(tab):
    """The plugins that are in the page."""
    queues = {"kissmetrics": "_kmq", "piwik": "_paq", "echo": "echoed"}
    return {alias for alias, queue in queues.items() if tab.js(f"'{queue}' in window")}


def heard(stand_in, origin):
    """The names of the events that each provider received."""
    received = stand_in.received(kind="event", origin=origin)
    return {name: [hit.name for hit in received if hit.provider == name] for name in stand_in.PROVIDERS}


@pytest.mark.parametrize(
    ("choice", "options", "user", "allowed"),
    [
        pytest.param(None, {}, None, {"echo"}, id="not asked"),
        pytest.param(ALL, {}, None, {"echo", "piwik", "kissmetrics"}, id="all"),
        pytest.param(STATISTICS, {}, None, {"echo", "piwik"}, id="no marketing"),
        pytest.param(NOTHING, {}, None, {"echo"}, id="refused"),
        pytest.param("1:analytics.", {}, None, {"echo"}, id="unreadable"),
        pytest.param(ALL, {"extra_http_headers": {"Sec-GPC": "1"}}, None, {"echo", "piwik"}, id="GPC"),
        pytest.param(ALL, {"extra_http_headers": {"DNT": "1"}}, None, {"echo"}, id="DNT"),
        pytest.param(ALL, {}, OPTED_OUT, set(), id="opted out"),
        pytest.param(ALL, {"user_agent": ROBOT}, None, set(), id="robot"),
    ],
)
def test_only_what_is_allowed(new_visitor, site, stand_in, settings, settle, drain, choice, options, user, allowed):
    settings.BROWSER_USER = user
    visitor = new_visitor(**options)
    if choice is not None:
        visitor.set_cookie(CHOICE, choice, site.url)
    track("Seen")
    tab = visitor.tab("/page/")
    settle(tab)
    drain()
    assert snippets(tab) == allowed
    asked = {
        "piwik" if "/matomo/" in url else "kissmetrics" for url in visitor.requests if url.startswith(stand_in.url)
    }
    assert asked == allowed - {"echo"}
    expected = {"kissmetrics": ["Seen"] * ("kissmetrics" in allowed), "matomo": ["Seen"] * ("piwik" in allowed)}
    assert heard(stand_in, "browser") == heard(stand_in, "server") == expected
    assert [event.name for event in Recorder.seen.get("echo", [])] == ["Seen"] * ("echo" in allowed)


def test_a_choice_counts_from_then_on(visitor, stand_in, settle, drain):
    """What was before it stays untold, and what comes after a withdrawal."""

    def look(name):
        track(name)
        tab.open("/page/")
        settle(tab)
        drain()

    def choose(*purposes):
        tab.open("/choose/")
        tab.submit("choice", *purposes)
        assert tab.path == "/plain/"

    tab = visitor.tab()
    look("Before")
    choose("analytics", "marketing")
    look("Between")
    assert snippets(tab) == {"echo", "piwik", "kissmetrics"}
    choose()
    look("After")
    assert snippets(tab) == {"echo"}
    expected = {"kissmetrics": ["Between"], "matomo": ["Between"]}
    assert heard(stand_in, "browser") == heard(stand_in, "server") == expected
    assert [event.name for event in Recorder.seen["echo"]] == ["Before", "Between", "After"]


def test_what_waited_is_not_sent_after_a_withdrawal(visitor, site, stand_in, settle):
    """An event that was allowed when it was tracked, and is no more when the page comes."""
    visitor.set_cookie(CHOICE, ALL, site.url)
    views.to_do.append(lambda request: host.track_client(request, "Seen"))
    tab = visitor.tab("/act/?next=/plain/")
    visitor.set_cookie(CHOICE, STATISTICS, site.url)
    tab.open("/page/")
    settle(tab)
    assert heard(stand_in, "browser") == {"kissmetrics": [], "matomo": ["Seen"]}
    visitor.set_cookie(CHOICE, ALL, site.url)
    tab.open("/page/")
    settle(tab)
    assert heard(stand_in, "browser") == {"kissmetrics": [], "matomo": ["Seen"]}
