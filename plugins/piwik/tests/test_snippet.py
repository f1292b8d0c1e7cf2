"""What the plugin adds to a page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from django.test import RequestFactory

from pluginhost import host
from pluginhost.html import Page
from pluginhost_piwik.actions import Vocabulary
from pluginhost_piwik.snippet import calls
from plugins.piwik.tests.helpers import HOSTILE, TOKEN, event, plugin

rf = RequestFactory()
WORDS = Vocabulary(goals={"paid": 4}, dimensions={"plan": 2})


def render(place: str = "head", /, options: dict | None = None, **page) -> str | None:
    made = plugin(**(options or {}))
    return made.render_client(rf.get("/"), Page(place=place, **page))


def pushed(html: str) -> list[list]:
    """The calls that a snippet pushes, of its first branch and of the others, with their message ids."""
    found = []
    for text in re.findall(r'"pluginhost:[a-z_]+:sent",(.*?)\);', html):
        text = re.fullmatch(r"JSON\.parse\((.*)\)", text)[1] if text.startswith("JSON.parse(") else text
        value = json.loads(text)
        found += json.loads(value) if isinstance(value, str) else value
    return found


def names(html: str) -> list[str]:
    return [call[0] for _, call in pushed(html)]


def test_a_page_of_an_anonymous_visitor():
    html = render()
    assert html.startswith("<script>")
    assert pushed(html) == [
        [None, ["setTrackerUrl", "https://stats.example/matomo.php"]],
        [None, ["setSiteId", "1"]],
        [None, ["trackPageView"]],
        [None, ["enableLinkTracking"]],
    ]
    assert "window._paq=window._paq||[]" in html
    assert '"https://stats.example/matomo.js",document.currentScript);' in html


def test_the_nonce_is_on_the_script_and_handed_on():
    html = render(nonce='n"once')
    assert html.startswith('<script nonce="n&quot;once">')
    assert "if(c&&c.nonce)g.nonce=c.nonce" in html


def test_settings_come_before_all_that_could_use_them():
    options = {
        "CONSENT": "tracking",
        "DISABLE_COOKIES": True,
        "COOKIE_DOMAIN": "*.example.com",
        "DO_NOT_TRACK": True,
        "LINK_TRACKING": False,
        "HEARTBEAT": 15,
    }
    assert [call for _, call in pushed(render(options=options))] == [
        ["requireConsent"],
        ["disableCookies"],
        ["setCookieDomain", "*.example.com"],
        ["setDoNotTrack", True],
        ["setTrackerUrl", "https://stats.example/matomo.php"],
        ["setSiteId", "1"],
        ["trackPageView"],
        ["enableHeartBeatTimer", 15],
    ]
    assert names(render(options={"CONSENT": "cookies"}))[0] == "requireCookieConsent"


def test_page_views_that_the_server_counts():
    html = render(counts_view=False)
    assert "trackPageView" not in html
    assert "setSiteId" in html
    assert render("body", counts_view=False) is None


def test_a_large_site_id_is_not_localised(settings):
    settings.LANGUAGE_CODE = "de"
    settings.USE_THOUSAND_SEPARATOR = True
    assert [None, ["setSiteId", "1234567"]] in pushed(render(options={"SITE_ID": 1234567}))
    assert "idsite=1234567&amp;rec=1" in render("body", options={"SITE_ID": 1234567})


# Who


def test_the_user_is_named_where_the_project_wants_it():
    assert plugin(USER_ID=True).announces_identity is True
    assert plugin().announces_identity is False
    assert [None, ["setUserId", "7"]] in pushed(render(options={"USER_ID": True}, identity="7"))
    assert "setUserId" not in names(render(options={"USER_ID": True}))
    assert "setUserId" not in names(render(identity="7"))


@pytest.mark.parametrize("identity", ["AnonymousUser", "none", "0", "u" * 201])
def test_no_user_is_named_that_matomo_would_take_for_many(identity):
    html = render(options={"USER_ID": True}, identity=identity)
    assert "setUserId" not in names(html)
    assert "resetUserId" in names(html)  # after a log-out


def test_after_a_log_out_the_first_hit_begins_a_new_visit():
    html = render(options={"USER_ID": True}, events=(event("a", message_id="m"),))
    begun, _, usual = html.partition('("pluginhost:piwik:signed_out"))')[2].partition("}else{")
    assert names(begun)[2:] == [
        "resetUserId", "appendToTrackingUrl", "trackPageView", "appendToTrackingUrl",
        "trackEvent", "enableLinkTracking",
    ]  # fmt: skip
    assert pushed(begun)[3] == [None, ["appendToTrackingUrl", "new_visit=1"]]
    assert pushed(begun)[5] == [None, ["appendToTrackingUrl", ""]]
    assert names(usual)[2:] == ["trackPageView", "trackEvent", "enableLinkTracking"]


def test_the_next_user_s_name_is_not_reset():
    html = render(options={"USER_ID": True}, identity="8")
    assert "resetUserId" not in html
    assert names(html).count("appendToTrackingUrl") == 2


def test_the_new_visit_ends_after_one_hit_even_if_that_is_an_order():
    order = event("paid", message_id="m", tuned={"order": {"id": 7, "revenue": 1, "items": [{"sku": "a"}]}, "goal": 3})
    html = render(options={"USER_ID": True, "LINK_TRACKING": False}, counts_view=False, events=(order,))
    begun = names(html.partition("}else{")[0])
    assert begun[2:] == [
        "resetUserId", "appendToTrackingUrl", "clearEcommerceCart", "addEcommerceItem", "trackEcommerceOrder",
        "appendToTrackingUrl", "trackGoal",
    ]  # fmt: skip


def test_a_log_out_waits_for_a_page_that_has_a_hit():
    assert "signed_out" not in render(options={"USER_ID": True}, counts_view=False)
    assert "signed_out" not in render()


# Events


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [["trackEvent", "Events", "signed up"]]),
        ({"value": 0}, [["trackEvent", "Events", "signed up", "", 0]]),
        (
            {"tuned": {"category": "Shop", "action": "look", "label": "Chair"}, "value": 2.5},
            [["trackEvent", "Shop", "look", "Chair", 2.5]],
        ),
        (
            {"properties": {"plan": "pro"}},
            [["trackEvent", "Events", "signed up", "", "", {"dimension2": "pro"}]],
        ),
        ({"name": "paid"}, [["trackEvent", "Events", "paid"], ["trackGoal", 4]]),
        (
            {"tuned": {"goal": 9, "revenue": 0}},
            [["trackEvent", "Events", "signed up"], ["trackGoal", 9, 0.0]],
        ),
        ({"tuned": {"search": "chair"}}, [["trackSiteSearch", "chair"]]),
        ({"tuned": {"search": {"keyword": "chair", "count": 0}}}, [["trackSiteSearch", "chair", False, 0]]),
        (
            {"tuned": {"search": "chair", "dimensions": {"7": "x"}}},
            [["trackSiteSearch", "chair", False, "", {"dimension7": "x"}]],
        ),
        ({"tuned": {"outlink": "https://e.org/"}}, [["trackLink", "https://e.org/", "link"]]),
        ({"tuned": {"download": "https://e.org/a.pdf"}}, [["trackLink", "https://e.org/a.pdf", "download"]]),
        (
            {
                "tuned": {"order": {"id": 42, "items": [{"sku": "A", "name": "Chair", "price": 9}], "tax": 0}},
                "value": 9,
            },
            [
                ["clearEcommerceCart"],
                ["addEcommerceItem", "A", "Chair", "", 9.0, 1],
                ["trackEcommerceOrder", "42", 9, False, 0.0],
            ],
        ),
        (
            {
                "tuned": {
                    "cart": {"items": [{"sku": "A", "category": ["x", "y"]}], "revenue": 3},
                    "dimensions": {"7": "x"},
                }
            },
            [
                ["clearEcommerceCart"],
                ["addEcommerceItem", "A", "", ["x", "y"], 0.0, 1],
                ["setCustomDimension", 7, "x"],
                ["trackEcommerceCartUpdate", 3.0],
                ["deleteCustomDimension", 7],
            ],
        ),
    ],
)
def test_events_in_matomo_s_words(fields, expected):
    assert calls(event(**fields), WORDS) == expected


@pytest.mark.parametrize("place", ["head", "body"])
def test_waiting_events_are_pushed_once_a_browser_wherever_they_come(place):
    html = render(place, events=(event("a", message_id="m1"), event("b", message_id="m2", tuned={"goal": 3})))
    assert [call for call in pushed(html) if call[0]] == [
        ["m1", ["trackEvent", "Events", "a"]],
        ["m2", ["trackEvent", "Events", "b"]],
        ["m2", ["trackGoal", 3]],
    ]


def test_an_event_that_cannot_be_said_leaves_the_others(caplog):
    html = render("body", events=(event("bad", tuned={"goal": 0}), event("good", message_id="m")))
    assert [call[1] for call in pushed(html)] == [["trackEvent", "Events", "good"]]
    assert "plugin piwik: a waiting event is lost: plugins.piwik.goal: Expected `int` >= 1" in caplog.text


# Without script


def test_the_image_without_script():
    assert render("body") == (
        '<noscript><p><img src="https://stats.example/matomo.php?idsite=1&amp;rec=1"'
        ' referrerpolicy="no-referrer-when-downgrade" width="1" height="1" alt=""></p></noscript>'
    )


@pytest.mark.parametrize(
    "options",
    [
        {"NOSCRIPT": False}, {"CONSENT": "tracking"}, {"CONSENT": "cookies"}, {"DO_NOT_TRACK": True},
        {"DISABLE_COOKIES": True},
    ],
    ids=repr,
)  # fmt: skip
def test_no_image_where_the_visitor_has_a_say(options):
    assert render("body", options=options) is None


# Hostile values


def test_hostile_values_stay_values():
    tuned = {
        "category": HOSTILE,
        "label": HOSTILE,
        "dimensions": {"1": HOSTILE},
        "goal": 3,
    }
    order = {"order": {"id": "7", "revenue": 1, "items": [{"sku": HOSTILE, "name": HOSTILE, "category": [HOSTILE]}]}}
    events = (event(HOSTILE, message_id=HOSTILE, tuned=tuned), event("x", message_id="m", tuned=order))
    options = {"USER_ID": True, "CATEGORY": HOSTILE}
    one_line = HOSTILE.replace("\u2028\u2029", " ")  # else it is no user's id
    for place in ("head", "body"):
        html = render(place, options=options, identity=one_line, events=events, nonce="n")
        script = html.partition("</script>")[0].partition(">")[2]
        assert not re.search(r"</?script|<!--|alert\(1\)<|\u2028|\u2029|😀", script)
        assert html.count("<script") == 1
        assert html.isascii()
        [track] = {call[1] for _, call in pushed(html) if call[0] == "trackEvent"}
        assert track == one_line
    named = [call[1:] for _, call in pushed(render(options=options, identity=one_line)) if call[0] == "setUserId"]
    assert [one_line] in named


def test_the_token_is_in_no_page(configure):
    configure(piwik={"URL": "https://stats.example/", "SITE_ID": 1, "TOKEN_AUTH": TOKEN, "USER_ID": True})
    request = rf.get("/")
    html = host.render(request, "head") + host.render(request, "body")
    assert "setSiteId" in html
    assert "noscript" in html
    assert TOKEN not in html
    assert "token_auth" not in html


# Two servers on a page

TWO = {
    "piwik": {"URL": "https://stats.example/", "SITE_ID": 1, "USER_ID": True},
    "piwik_intranet": {"PLUGIN": "piwik", "URL": "https://intern.example/m/", "SITE_ID": 3},
}


def test_each_alias_has_a_queue_and_a_tracker_of_its_own(configure):
    configure(**TWO)
    first, second = host.render(rf.get("/")).splitlines()
    assert "window._paq=window._paq||[]" in first
    assert "getTracker" not in first
    assert "window._paq_piwik_intranet=window._paq_piwik_intranet||[]" in second
    assert "window._paq=" not in second
    assert pushed(second)[:2] == [
        [None, ["setTrackerUrl", "https://intern.example/m/matomo.php"]],
        [None, ["setSiteId", "3"]],
    ]
    assert (
        '("_paq_piwik_intranet","https://intern.example/m/matomo.php","https://intern.example/m/matomo.js",' in second
    )


def test_an_alias_of_any_name_has_matomo_s_queue_if_it_is_the_only_one(configure):
    configure(stats={"PLUGIN": "piwik", "URL": "https://stats.example/", "SITE_ID": 1})
    assert "window._paq=window._paq||[]" in host.render(rf.get("/"))


BROWSER = """
const elements = [], log = [], storage = {};
function element(tag) {
  const listeners = {};
  return {tag, addEventListener: (name, f) => (listeners[name] = listeners[name] || []).push(f),
          fire(name) { if (this['on' + name]) this['on' + name](); (listeners[name] || []).forEach(f => f()); }};
}
globalThis.window = globalThis;
globalThis.document = {createElement: element, currentScript: {nonce: 'n'}, cookie: '%(cookie)s',
                       head: {appendChild: e => elements.push(e)}};
globalThis.localStorage = {getItem: k => k in storage ? storage[k] : null, setItem: (k, v) => storage[k] = v};
function tracker(name) {
  return new Proxy({}, {get: (_, method) => (...args) => log.push([name, method, ...args])});
}
function loadMatomo() {
  if (window.Matomo) return;
  window.Matomo = {getTracker: (url, id) => tracker(url + '#' + id)};
  const first = tracker('async'), run = call => first[call[0]](...call.slice(1));
  if (window._paq) { window._paq.forEach(run); }
  window._paq = {push: (...calls) => calls.forEach(run)};
}
%(scripts)s
%(then)s
console.log(JSON.stringify({log, elements: elements.map(e => [e.src, e.nonce, e.async])}));
"""

node = pytest.mark.skipif(shutil.which("node") is None, reason="no node")


def run(html: str, then: str, cookie: str = "") -> dict:
    """Run the scripts of a page in a browser's place."""
    scripts = ";\n".join(re.findall(r"<script[^>]*>(.*?)</script>", html))
    code = BROWSER % {"scripts": scripts, "then": then, "cookie": cookie}
    done = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@node
@pytest.mark.parametrize(
    ("then", "sources"),
    [
        ("loadMatomo(); elements[0].fire('load');", ["https://stats.example/matomo.js"]),
        (
            "elements[0].fire('error'); loadMatomo(); elements[1].fire('load');",
            ["https://stats.example/matomo.js", "https://intern.example/m/matomo.js"],
        ),
    ],
)
def test_two_trackers_share_the_script_and_nothing_else(configure, then, sources):
    configure(**TWO)
    html = host.render(rf.get("/"))
    later = "window._paq_piwik_intranet.push(['trackEvent', 'a', 'b']);"

    seen = run(html, then + later)

    intern = "https://intern.example/m/matomo.php#"
    assert seen["elements"] == [[source, "n", True] for source in sources]
    assert [call[1:] for call in seen["log"] if call[0] == intern] == [
        ["setTrackerUrl", "https://intern.example/m/matomo.php"],
        ["setSiteId", "3"],
        ["trackPageView"],
        ["enableLinkTracking"],
        ["trackEvent", "a", "b"],
    ]
    assert [call[1:] for call in seen["log"] if call[0] == "async"] == [
        ["setTrackerUrl", "https://stats.example/matomo.php"],
        ["setSiteId", "1"],
        ["trackPageView"],
        ["enableLinkTracking"],
    ]


@node
def test_a_second_tracker_alone_loads_the_script_itself(configure):
    configure(**TWO)
    second = host.render(rf.get("/")).splitlines()[1]
    seen = run(second, "loadMatomo(); elements[0].fire('load');")
    assert seen["elements"] == [["https://intern.example/m/matomo.js", "n", True]]
    assert [call[1] for call in seen["log"]] == ["setTrackerUrl", "setSiteId", "trackPageView", "enableLinkTracking"]


@node
def test_a_second_tracker_where_the_script_is_there_already(configure):
    configure(**TWO)
    first, second = host.render(rf.get("/")).splitlines()
    seen = run(f"{first}<script>loadMatomo()</script>{second}", "elements[0].fire('load');")
    assert [call[1] for call in seen["log"] if "intern" in call[0]].count("trackPageView") == 1


@node
def test_a_log_out_is_seen_once(configure):
    configure(**TWO)
    first = host.render(rf.get("/")).splitlines()[0]
    seen = run(f"{first}<script>loadMatomo()</script>{first}", "", cookie="pluginhost_signed_out=1795262400000")
    tracked = [call[1:] for call in seen["log"] if call[1] in ("resetUserId", "appendToTrackingUrl", "trackPageView")]
    assert tracked == [
        ["resetUserId"],
        ["appendToTrackingUrl", "new_visit=1"],
        ["trackPageView"],
        ["appendToTrackingUrl", ""],
        ["trackPageView"],
    ]


@node
def test_hostile_values_arrive_as_they_were(configure):
    html = render(events=(event("x", message_id="m", tuned={"label": HOSTILE}),))
    seen = run(html, "loadMatomo();")
    assert ["async", "trackEvent", "Events", "x", HOSTILE.replace("\u2028\u2029", " ")] in seen["log"]
