"""What stands in a page."""

from __future__ import annotations

import datetime as dt
import json
import re

import pytest
from django.contrib.auth.models import User
from django.test import RequestFactory
from django.utils.safestring import SafeString

from pluginhost import Event, Page, Secret, host
from pluginhost_kissmetrics import snippet
from pluginhost_kissmetrics.options import Options, Skip

KEY = "0123456789abcdef0123456789abcdef01234567"
HOSTILE = [
    "</script><script>alert(1)</script>",
    "'\"`;alert(1)//",
    "\u2028alert(1)\u2029",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "<!--<script>",
    "\\u003C\\",
    "🌱 grün",
    "__proto__",
    "&lt;img src=x onerror=alert(1)&gt;",
]


def render(place="head", alias="kissmetrics", nonce=None, identity=None, events=(), counts_view=True, **options):
    page = Page(place=place, nonce=nonce, identity=identity, events=events, counts_view=counts_view)
    return snippet.render(page, alias, Options(API_KEY=Secret(KEY), **options))


def event(name="Signed Up", message_id="m1", **fields) -> Event:
    return Event(type="track", name=name, message_id=message_id, timestamp=dt.datetime(2026, 11, 21), **fields)


def value(js: str):
    """What a piece of JavaScript stands for that ``to_js`` made."""
    if js.startswith("JSON.parse("):
        js = json.loads(js.removeprefix("JSON.parse(").removesuffix(")"))
    return json.loads(js)


def calls(html: str) -> list:
    """What the page pushes for waiting events: the last argument of the host's function."""
    return value(re.search(r'"pluginhost:kissmetrics:sent",(.+?)\);(?:\(function|</script>)', html).group(1))


def test_the_head_loads_both_scripts_after_their_globals():
    html = render()

    assert isinstance(html, SafeString)
    assert html.startswith("<script>")
    assert html.count("<script") == 1
    assert f'window._kmk="{KEY}";' in html
    assert "window._kmq=window._kmq||[];" in html
    assert f'["https://i.kissmetrics.io/i.js", "https://scripts.kissmetrics.io/{KEY}.2.js"]' in html
    assert html.index("_kmk=") < html.index("_kmq=") < html.index("createElement")
    assert "s.async=true" in html


def test_the_scripts_take_over_the_nonce():
    html = render(nonce='r4nd"om')

    assert html.startswith('<script nonce="r4nd&quot;om">')
    assert "(document.currentScript||{}).nonce)" in html
    assert "s.nonce=nonce" in html


def test_scripts_from_elsewhere():
    html = render(LOADER_URL="http://localhost:8000/i.js", SCRIPT_URL="http://localhost:8000/scripts/")

    assert f'["http://localhost:8000/i.js", "http://localhost:8000/scripts/{KEY}.2.js"]' in html
    assert "kissmetrics.io" not in html


def test_the_body_is_only_for_late_events():
    assert render("body") is None
    html = render("body", nonce="n", identity="7", events=(event(),))

    assert html.startswith('<script nonce="n">')
    assert calls(html) == [["m1", ["record", "Signed Up"]]]
    assert "identify" not in html
    assert "createElement" not in html


def test_waiting_events_are_pushed_before_the_scripts_come_and_after_the_name():
    html = render(identity="7", events=(event(),))

    assert html.index('"identify",id') < html.index('"Signed Up"') < html.index("createElement")


def test_events_follow_the_rules_of_the_server():
    first = event(
        properties={"_k": "forged", "plan": {"name": "pro"}, "tags": ["a", "b"], "none": None, "long": "x" * 600},
        value=9.5,
    )
    second = event(" Paid ", "m2", value=3, plugins={"kissmetrics": {"value_as": "Billing Amount"}})

    assert calls(render(events=(first, second))) == [
        [
            "m1",
            [
                "record",
                "Signed Up",
                {"k": "forged", "plan.name": "pro", "tags": "a,b", "long": "x" * 512, "Value": "9.5"},
            ],
        ],
        ["m2", ["record", "Paid", {"Billing Amount": "3"}]],
    ]


def test_a_bad_name_of_the_value_costs_only_the_value():
    odd = event(properties={"plan": "pro"}, value=3, plugins={"kissmetrics": {"value_as": 7}})

    assert calls(render(events=(odd,))) == [["m1", ["record", "Signed Up", {"plan": "pro"}]]]


def test_the_alias_keeps_its_own_marks():
    html = render(alias="km_shop", identity="7", events=(event(),))

    assert '"pluginhost:km_shop:identity"' in html
    assert '"pluginhost:km_shop:signed_out"' in html
    assert '"pluginhost:km_shop:sent"' in html


@pytest.mark.parametrize(("identity", "told"), [("7", '"7"'), (None, "null"), ("None", "null"), ("x" * 256, "null")])
def test_who_is_announced(identity, told):
    assert f'(window._kmq,"pluginhost:kissmetrics:identity",{told},' in render(identity=identity)


def test_without_identify_the_browser_is_left_alone():
    html = render(identity="7", IDENTIFY=False)

    assert "identify" not in html
    assert "clearIdentity" not in html
    assert "localStorage" not in html
    assert "createElement" in html


def test_without_the_loader_the_rest_stays():
    html = render(identity="7", events=(event(),), LOADER=False, COOKIE_DOMAIN=".example.com", SKIP={"utm"})

    assert "createElement" not in html
    assert KEY not in html
    assert "window.KM_" not in html
    assert '"identify",id' in html
    assert calls(html) == [["m1", ["record", "Signed Up"]]]


def test_with_neither_only_events_are_left():
    assert render(identity="7", LOADER=False, IDENTIFY=False) is None
    assert calls(render(events=(event(),), LOADER=False, IDENTIFY=False)) == [["m1", ["record", "Signed Up"]]]


def test_globals():
    plain = render()
    html = render(COOKIE_DOMAIN=".example.com", SKIP={"visited_site", "utm"})

    assert "KM_" not in plain
    assert 'window.KM_COOKIE_DOMAIN=".example.com";window.KM_SKIP_UTM=1;window.KM_SKIP_VISITED_SITE=1;' in html
    assert html.index("KM_SKIP_UTM") < html.index("createElement")


def test_each_word_of_skip_has_a_global():
    assert set(snippet.SKIPS) == set(Skip.__args__)
    html = render(SKIP=frozenset(snippet.SKIPS))
    assert sorted(re.findall(r"window\.(KM_SKIP_\w+)=1;", html)) == sorted(snippet.SKIPS.values())


def test_a_page_that_the_server_counts_is_not_counted_again():
    assert "KM_SKIP" not in render(counts_view=True)
    assert re.findall(r"KM_SKIP_\w+=1", render(counts_view=False)) == ["KM_SKIP_PAGE_VIEW=1"]
    assert render(counts_view=False, SKIP={"page_view"}).count("KM_SKIP_PAGE_VIEW") == 1


@pytest.mark.parametrize("place", ["head", "body"])
@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_hostile_gets_out_of_its_string(place, text):
    html = render(place, identity=text, events=(event(text, properties={text: text, "nested": {text: [text]}}),))

    inside = re.fullmatch(r"<script>(.*)</script>", html, re.DOTALL).group(1)
    assert html.isascii()
    assert "</" not in inside
    assert "<!--" not in inside
    assert "alert(1)<" not in inside
    name = text.strip()
    properties = {text.lstrip("_").strip(): text, f"nested.{text}".strip(): text}
    assert calls(html) == [["m1", ["record", name, properties]]]
    if place == "head":
        told = re.search(r'"pluginhost:kissmetrics:identity",(.+?),\(function\(k\)', html).group(1)
        assert value(told) == name


# --- through the host ---


@pytest.mark.django_db
def test_a_page_of_the_site(configure):
    configure(kissmetrics={"API_KEY": KEY})
    request = RequestFactory().get("/")
    request.user = User.objects.create(username="ada")
    request.csp_nonce = "r4ndom"

    html = host.render(request)

    assert html.startswith('<script nonce="r4ndom">')
    assert f'"pluginhost:kissmetrics:identity","{request.user.pk}",' in html
    assert host.render(request, "body") == ""


@pytest.mark.django_db
def test_a_server_that_counts_page_views(configure):
    configure(kissmetrics={"API_KEY": KEY}, PAGE_VIEWS="server")

    assert "KM_SKIP_PAGE_VIEW=1" in host.render(RequestFactory().get("/"))
