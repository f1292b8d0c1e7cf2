"""What ``Plugin`` does for its subclasses."""

from __future__ import annotations

import datetime as dt

import pytest

from pluginhost import Event, host
from tests.samples import Recorder


@pytest.mark.parametrize(
    ("who", "wanted"),
    [({}, False), ({"user_id": "5"}, True), ({"anonymous_id": "x"}, True)],
    ids=["no", "user", "visitor"],
)
def test_a_plugin_that_needs_a_person(configure, monkeypatch, who, wanted):
    configure(recorder={})
    plugin = host.registry.plugins["recorder"].plugin
    event = Event(type="track", name="x", message_id="1", timestamp=dt.datetime.now(dt.UTC), **who)
    assert plugin.wants(event)

    monkeypatch.setattr(Recorder, "needs_identity", True)
    assert plugin.wants(event) is wanted


def test_what_the_alias_does_not_say_is_as_the_class_says(configure, monkeypatch):
    facts = {"batch_size": 7, "timeout": 8.0, "concurrency": 9, "purpose": "marketing"}
    for name, value in facts.items():
        monkeypatch.setattr(Recorder, name, value)
    configure(recorder={})
    plugin = host.registry.plugins["recorder"].plugin
    assert {name: getattr(plugin, name) for name in facts} == facts
