"""The consent cookie, whatever a browser writes into it."""

from __future__ import annotations

import re

from django.http import HttpResponse, parse_cookie
from hypothesis import given
from hypothesis import strategies as st

from pluginhost.builtin.consent import cookie

PURPOSES = st.from_regex(r"\A[a-z][a-z0-9_-]{0,31}\Z")
#: Text that looks like a cookie's value, and is one now and then.
NEARLY = st.lists(st.sampled_from(["1:", "2:", ":", ".", "analytics", "marketing", "A", "é", "\n", " ", "1"])).map(
    "".join
)


@given(st.text() | NEARLY)
def test_reading_never_raises_and_grants_only_what_is_written(text):
    granted = cookie.parse(text)
    if granted is not None:
        assert text.startswith("1:")
        assert set(filter(None, text[2:].split("."))) == granted
        assert all(re.fullmatch("[a-z][a-z0-9_-]{0,31}", purpose) for purpose in granted)
        assert cookie.parse(cookie.dump(granted)) == granted


@given(st.sets(PURPOSES, max_size=12))
def test_what_is_written_is_read(purposes):
    assert cookie.parse(cookie.dump(purposes)) == purposes


@given(st.sets(PURPOSES, max_size=12))
def test_a_value_travels_as_it_is(purposes):
    """Neither Django nor a browser has to quote it, and a script can read it."""
    value = cookie.dump(purposes)
    response = HttpResponse()
    response.set_cookie("consent", value)
    header = response.cookies["consent"].output(attrs=[], header="").strip()
    assert header == f"consent={value}"
    assert parse_cookie(header)["consent"] == value


@given(st.sets(PURPOSES, min_size=1, max_size=12), st.sampled_from(["", " ", ".", ",", "\n", "\0", ".A", "\u2028"]))
def test_a_value_with_something_more_is_none_at_all(purposes, more):
    value = cookie.dump(purposes)
    assert cookie.parse(value + more) == (purposes if more == "" else None)


def test_a_long_value_is_none_at_all():
    assert cookie.parse("1:" + ".".join(["x"] * 255)) == {"x"}
    assert cookie.parse("1:" + ".".join(["x"] * 256)) is None
