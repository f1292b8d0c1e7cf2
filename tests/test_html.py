"""Values become JavaScript in one place: whatever they hold, they stay values."""

from __future__ import annotations

import json
import re

import pytest
from django.test import RequestFactory
from django.utils.safestring import SafeString
from hypothesis import given
from hypothesis import strategies as st

import pluginhost
from pluginhost.html import csp_nonce, signed_out, to_js

TEXTS = st.one_of(
    st.text(),
    st.text(
        st.characters(codec="utf-8", categories=["Cs", "Po", "Sm", "Zl", "Zp", "Cc"]) | st.sampled_from("<>&'\"\\/")
    ),
    st.sampled_from(["</script>", "<!--", "]]>", "\u2028\u2029", "__proto__", "constructor", "'+alert(1)+'", "\ud800"]),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
CYCLE: list = []
CYCLE.append(CYCLE)


def evaluated(code: str):
    """What a browser makes of the code: a literal of JSON, or one that JSON.parse is given."""
    wrapped = re.fullmatch(r"JSON\.parse\((.*)\)", code)
    return json.loads(json.loads(wrapped[1])) if wrapped else json.loads(code)


@given(VALUES)
def test_a_value_is_a_value_and_nothing_else(value):
    code = to_js(value)
    assert isinstance(code, SafeString)
    assert code.isascii()
    assert not re.search(r"[\x00-\x1f]", code)
    assert not set(code) & set("<>&'")
    assert evaluated(code) == value


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        ("a b", '"a b"'),
        ("</script>", r'"\u003C/script\u003E"'),
        ("R&D 'x'", r'"R\u0026D \u0027x\u0027"'),
        ("\u2028é", r'"\u2028\u00e9"'),
        ({"a": (1, 2)}, '{"a": [1, 2]}'),
        (SafeString("<b>"), r'"\u003Cb\u003E"'),
    ],
    ids=repr,
)
def test_what_is_written(value, code):
    assert to_js(value) == code


@pytest.mark.parametrize(
    "value",
    [{"__proto__": {"isAdmin": True}}, [{"a": {"__proto__": None}}], {"x": "__proto__", "</script>'": "__proto__"}],
    ids=repr,
)
def test_no_value_sets_a_prototype(value):
    """In an object literal the key ``__proto__`` would; JSON.parse makes it a key like any other."""
    code = to_js(value)
    assert code.startswith('JSON.parse("')
    assert not set(code) & set("<>&'")
    assert evaluated(code) == value


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (float("nan"), ValueError),
        ([float("inf")], ValueError),
        ({"a": float("-inf")}, ValueError),
        (CYCLE, ValueError),
        ({1, 2}, TypeError),
        (b"bytes", TypeError),
        (object, TypeError),
        ({("a", "b"): 1}, TypeError),
    ],
    ids=str,
)
def test_what_json_cannot_hold_is_refused(value, error):
    with pytest.raises(error):
        to_js(value)


def test_the_public_name_is_the_same_function():
    assert pluginhost.to_js is to_js


# --- script ---


def page(**facts):
    return pluginhost.Page(place="head", **facts)


@pytest.mark.parametrize(
    ("nonce", "tag"),
    [
        (None, "<script>"),
        ("", "<script>"),
        ("r4nd0m+/=", '<script nonce="r4nd0m+/=">'),
        ('"><script>alert(1)', '<script nonce="&quot;&gt;&lt;script&gt;alert(1)">'),
    ],
    ids=repr,
)
def test_a_script_carries_the_nonce_of_the_page(nonce, tag):
    script = page(nonce=nonce).script(f"f({to_js('</script>')})")
    assert isinstance(script, SafeString)
    assert script == tag + r'f("\u003C/script\u003E")</script>'


@pytest.mark.parametrize(
    "code", ["x='</script>'", "</SCRIPT", "a<!--b", "'<script>'", "<ScRiPt\n", f"f({json.dumps('</script >')})"]
)
def test_code_that_holds_a_tag_is_refused(code):
    with pytest.raises(ValueError, match="pass each value through to_js"):
        page().script(code)


@pytest.mark.parametrize("code", ["if(a<b&&c>d){}", "x='<b>'", "script", "a < script", "1</2/"])
def test_code_that_only_compares_is_not(code):
    assert page().script(code) == f"<script>{code}</script>"


# --- push ---


@pytest.mark.parametrize("queue", ["_kmq", "_paq", "$q", "Q1"])
def test_a_queue_is_made_if_there_is_none(queue):
    code = page().push(queue, [], "x")
    assert f"(window.{queue}=window.{queue}||[]," in code


@pytest.mark.parametrize("queue", ["", "1q", "a.b", "a b", "a[0]", "q=alert(1)", "q\n", "é", "qé", "a-b", "</script>"])
def test_what_is_no_name_for_a_queue_is_refused(queue):
    with pytest.raises(ValueError, match="is no name for a queue"):
        page().push(queue, [], "x")


def test_calls_are_values():
    name = "</script><script>alert('1')</script>"
    code = page().push("_q", ((id_, ["record", name]) for id_ in ("a", None)), "al'ias")
    key, calls = re.fullmatch(r".*\|\|\[\],(\".*?\"),(\[.*\])\);", code).groups()
    assert json.loads(key) == "pluginhost:al'ias:sent"
    assert json.loads(calls) == [["a", ["record", name]], [None, ["record", name]]]
    assert page().script(code).count("</script>") == 1


def test_a_call_that_json_cannot_hold_is_refused():
    with pytest.raises(TypeError):
        page().push("_q", [(None, [object()])], "x")


def test_two_aliases_keep_apart_what_they_have_sent():
    assert page().push("_q", [], "a") != page().push("_q", [], "b")
    assert signed_out("a") != signed_out("b")


def test_an_expression_for_signed_out_is_safe_in_a_script():
    code = f"if({signed_out('alias')}){{}}"
    assert '"pluginhost:alias:signed_out"' in code
    assert page().script(code) == f"<script>{code}</script>"


# --- the nonce ---


def test_a_nonce_that_can_no_longer_be_made_breaks_no_page(caplog):
    """django-csp 4 raises CSPNonceError for one that is asked for after its header has gone, as by a streamed page."""

    class Late:
        def __str__(self):
            raise RuntimeError("The nonce has not been used in the header")

    request = RequestFactory().get("/")
    request.csp_nonce = Late()
    assert csp_nonce(request) is None
    assert "nonce" in caplog.text
