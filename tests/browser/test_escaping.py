"""What Python gives is what JavaScript has, whatever it is, and none of it runs."""

from __future__ import annotations

import pytest

from pluginhost import host
from tests.browser import hostile
from tests.browser.site import views


def echoed(tab):
    """What the page's array holds, as it is when a script sends it away."""
    tab.js("fetch('/received/', {method: 'POST', body: JSON.stringify(echoed)})")
    return views.received.pop()


@hostile.TEXT
def test_every_place_holds_what_it_was_given(visitor, configure, settings, text):
    """Literals and pushed values in head and body, names, keys and values of events, the visitor's identity."""
    configure(echo={"TEXT": text})
    settings.BROWSER_USER = text
    properties = {text: 1, "value": text, "list": [text, {"nested": {text: text}}]}
    views.to_do.append(lambda request: host.track_client(request, text, properties))
    tab = visitor.tab("/page/")
    assert echoed(tab) == [
        ["head", "pushed option", text],
        ["head", "event", text, properties],
        ["head", "option", text],
        ["head", "identity", text],
        ["body", "pushed option", text],
        ["body", "option", text],
        ["body", "identity", text],
    ]
    assert tab.js("own") == ["first", "last", "ready"]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(hostile.LONG, id="long"),
        pytest.param(list(hostile.TEXTS.values()), id="texts"),
        pytest.param({"__proto__": {"polluted": True}, "constructor": {"prototype": {"polluted": True}}}, id="proto"),
        pytest.param([0, -0.5, 1e300, 2**53 - 1, True, False, None, "", [], {}, {"": ""}], id="kinds"),
    ],
)
def test_a_value_of_any_kind_arrives(visitor, configure, value):
    configure(echo={"TEXT": value})
    tab = visitor.tab("/page/")
    texts = {place: found for place, what, found in echoed(tab) if what == "option"}
    assert texts == {"head": value, "body": value}
    assert tab.js("({}).polluted") is None


def test_aliases_have_queues_of_their_own(visitor, configure):
    """And each remembers for itself what it has sent."""
    configure(echo={}, other={"PLUGIN": "echo", "QUEUE": "others"})
    views.to_do.append(lambda request: host.track_client(request, "order paid"))
    tab = visitor.tab("/page/")
    for queue in ("echoed", "others"):
        assert [call[2] for call in tab.js(queue) if call[1] == "event"] == ["order paid"]
