"""The tests of the browser would notice what must not happen."""

from __future__ import annotations

import pytest

POLICY = "default-src 'none'; script-src 'nonce-{nonce}'"


def test_a_page_runs_without_any_trouble(visitor, configure):
    configure(echo={})
    tab = visitor.tab("/page/")
    assert tab.js("own") == ["first", "last", "ready"]
    assert visitor.troubles == []


@pytest.mark.parametrize(
    ("html", "policy", "trouble"),
    [
        pytest.param("<script>alert(1)</script>", None, "dialog: 1", id="dialog"),
        pytest.param("<script>nobody.knows</script>", None, "nobody is not defined", id="exception"),
        pytest.param("<script>console.error('oh')</script>", None, "console: oh", id="console"),
        pytest.param("<script>alert(1)</script>", POLICY, "violation: script-src-elem", id="script"),
        pytest.param("<img src='http://127.0.0.1:1/'>", POLICY, "violation: img-src", id="image"),
        pytest.param("<script src='/missing.js'></script>", None, "404", id="missing"),
    ],
)
def test_trouble_is_noticed(visitor, configure, settings, html, policy, trouble):
    settings.BROWSER_POLICY = policy
    configure(careless={"HTML": html})
    visitor.tab("/page/")
    visitor.excuse(".")
    assert [found for found in visitor.troubles if trouble in found]
    assert ("dialog: 1" in visitor.troubles) is (trouble == "dialog: 1")


def test_nothing_leaves_the_machine(visitor, configure):
    configure(careless={"HTML": "<img src='http://pluginhost.example.com/'>"})
    visitor.tab("/page/")
    visitor.excuse("ERR_NAME_NOT_RESOLVED")
    assert "ERR_NAME_NOT_RESOLVED" in visitor.troubles[0]


def test_visitors_share_nothing(new_visitor, configure):
    configure(echo={})
    one, other = new_visitor(), new_visitor()
    tab = one.tab("/plain/")
    tab.js("document.cookie = 'whose=mine'; localStorage.setItem('whose', 'mine')")
    assert one.cookies() == {"whose": "mine"}
    assert one.tab("/plain/").js("localStorage.getItem('whose')") == "mine"
    assert other.cookies() == {}
    assert other.tab("/plain/").js("localStorage.getItem('whose')") is None


def test_a_duplicated_tab_has_the_storage_of_the_first(visitor, configure):
    configure(echo={})
    tab = visitor.tab("/plain/")
    tab.js("sessionStorage.setItem('tab', 'first')")
    copy = tab.duplicate()
    assert copy.path == "/plain/"
    assert copy.js("sessionStorage.getItem('tab')") == "first"
    assert visitor.tab("/plain/").js("sessionStorage.getItem('tab')") is None
