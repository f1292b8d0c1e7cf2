"""Who: what stands for a person, and what the cookies of KISSmetrics' script say."""

from __future__ import annotations

import datetime as dt

import pytest
from django.test import RequestFactory

from pluginhost import CookieIds, Event, Secret
from pluginhost_kissmetrics.identity import person, usable
from pluginhost_kissmetrics.options import Options
from pluginhost_kissmetrics.plugin import Kissmetrics

MADE = "7OeC+b4xyhEYCBZ+RxfXDHcxsRk="
ENCODED = "7OeC%2Bb4xyhEYCBZ%2BRxfXDHcxsRk%3D"


@pytest.fixture
def plugin(api_key):
    return Kissmetrics("kissmetrics", Options(API_KEY=Secret(api_key)))


def request(**cookies):
    made = RequestFactory().get("/")
    made.COOKIES.update(cookies)
    return made


def event(**fields) -> Event:
    moment = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
    return Event(type=fields.pop("type", "track"), name="x", message_id="m", timestamp=moment, **fields)


@pytest.mark.parametrize(
    "text", ["7", "bob@bob.com", "x" * 255, "Anonymous Bob", "ü", "00", "nile", "null-1", "nan1", "True Grit", "a:b"]
)
def test_what_stands_for_a_person(text):
    assert usable(text) == text
    assert usable(f"  {text} ") == text


@pytest.mark.parametrize(
    "text",
    [
        None, "", " ", "0", "None", "none", "null", "NULL", "nil", "anonymous", "Anonymous", "undefined", " null ",
        "AnonymousUser", "anonymoususer", "NaN", "nan", "false", "False", "true", "[object Object]",
        "[object Undefined]", "{}", "[]", "(null)", "<nil>", "<null>", "not_authenticated", " NaN ", ",", ":", " ,: ",
        "x" * 256, "a\0b", "a\nb", "\ud800",
    ],
)  # fmt: skip
def test_what_stands_for_nobody(text):
    assert usable(text) is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"user_id": "7", "visitor_ids": {"kissmetrics": "v"}, "anonymous_id": "a"}, "7"),
        ({"visitor_ids": {"kissmetrics": "v"}, "anonymous_id": "a"}, "v"),
        ({"visitor_ids": {"piwik": "p"}, "anonymous_id": "a"}, "a"),
        ({"user_id": "None", "visitor_ids": {"kissmetrics": "null"}, "anonymous_id": "a"}, "a"),
        ({"user_id": "None", "anonymous_id": "anonymous"}, None),
        ({}, None),
    ],
)
def test_the_order_of_ids(plugin, fields, expected):
    assert person(event(**fields), "kissmetrics") == expected
    assert plugin.wants(event(**fields)) is (expected is not None)


def test_an_alias_is_wanted_in_any_case_as_its_refusal_has_a_reason(plugin):
    assert plugin.wants(event(type="alias"))


@pytest.mark.parametrize(
    ("cookies", "anonymous", "visitor"),
    [
        ({}, None, None),
        ({"km_ai": ENCODED}, MADE, MADE),
        ({"km_ai": MADE}, MADE, MADE),
        ({"km_ai": ENCODED, "km_ni": "bob%40bob.com"}, MADE, "bob@bob.com"),
        ({"km_ni": "bob%40bob.com"}, None, "bob@bob.com"),
        # The script was told of a second person, and keeps that one's id in both.
        ({"km_ai": ENCODED, "km_ni": ENCODED}, None, MADE),
        ({"km_ai": "bob%40bob.com", "km_ni": "bob%40bob.com"}, None, "bob@bob.com"),
        ({"km_ai": "bob%40bob.com"}, None, "bob@bob.com"),
        # A named id that is long: a number, a hash, a UUID.
        ({"km_ai": "1" * 28}, None, "1" * 28),
        ({"km_ai": "550e8400e29b41d4a716446655440000"}, None, "550e8400e29b41d4a716446655440000"),
        ({"km_ai": "550e8400-e29b-41d4-a716-446655440000"}, None, "550e8400-e29b-41d4-a716-446655440000"),
        # What is not to be believed.
        ({"km_ai": "null", "km_ni": "null"}, None, None),
        ({"km_ai": ENCODED, "km_ni": "undefined"}, MADE, MADE),
        ({"km_ai": "aB" * 128}, None, None),
        ({"km_ni": "a%00b"}, None, None),
        ({"km_ni": "%0d%0aSet-Cookie"}, None, None),
        ({"km_ni": "a%0ab"}, None, None),
        ({"km_ni": "%FF%zz"}, None, "�%zz"),
        ({"km_ni": "x" * 256, "km_ai": ENCODED}, MADE, MADE),
    ],
)
def test_what_the_cookies_say(plugin, cookies, anonymous, visitor):
    assert plugin.cookie_ids(request(**cookies)) == CookieIds(anonymous, visitor)


def test_after_a_log_out_a_name_may_be_that_of_the_one_who_left(plugin):
    left = request(km_ai=ENCODED, km_ni="bob%40bob.com", pluginhost_signed_out="1795262400000")
    assert plugin.cookie_ids(left) is None

    cleared = request(km_ai=ENCODED, pluginhost_signed_out="1795262400000")
    assert plugin.cookie_ids(cleared) == CookieIds(MADE, MADE)
