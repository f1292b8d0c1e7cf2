"""``Plugin.screen``: asked in the worker whether any plugin may have an event."""

from __future__ import annotations

import pytest

from pluginhost import host
from pluginhost.delivery import runner as runners
from tests.samples import Recorder
from tests.steps import account, rounds, seen, track

transactional = pytest.mark.django_db(databases="__all__", transaction=True)
SCREENER = {"PLUGIN": "screener", "TOKEN": "hush"}


def only(*names):
    return lambda event: event.name in names


@transactional
@pytest.mark.parametrize("transport", ["outbox", "inline"])
def test_what_is_screened_out_reaches_no_lane(database, configure, transport):
    configure(transport, recorder={}, folder={}, screener={})
    Recorder.act["screener"] = only("good", "better")
    track("good", "bad", "better")
    if transport == "outbox":
        rounds(database, "recorder")
        rounds(database, "folder")
        for lane in ("recorder", "folder"):
            assert account(database, lane) == {"accepted": 3, "delivered": 2, "skipped": 1}
    assert seen("recorder") == seen("folder") == ["good", "better"]


@transactional
def test_a_batch_of_nothing_but_screened_events_calls_no_hook(database, configure):
    configure("outbox", folder={}, screener={})
    Recorder.act["screener"] = only()
    Recorder.act["folder"] = lambda batch: pytest.fail("called")
    track("a", "b")
    rounds(database, "folder")
    assert account(database, "folder") == {"accepted": 2, "skipped": 2}


@pytest.mark.parametrize(
    ("first", "second", "delivered"),
    [
        (True, True, True),
        (True, False, False),
        (False, True, False),
        (False, False, False),
        (None, True, True),
        (None, False, False),
    ],
)
def test_one_is_enough(configure, first, second, delivered):
    configure("inline", recorder={}, first={"PLUGIN": "screener"}, second={"PLUGIN": "screener"})
    Recorder.act.update(first=lambda event: first, second=lambda event: second)
    host.track(None, "x")
    assert bool(seen("recorder")) is delivered


def test_the_event_is_the_one_that_is_delivered(configure):
    screened = []
    configure("inline", recorder={}, screener={})
    Recorder.act["screener"] = lambda event: not screened.append(event)
    host.track(None, "x", {"a": 1}, user_id=5)
    assert screened == Recorder.seen["recorder"]


def test_it_is_asked_once_an_event_and_lane(configure):
    asked = []
    configure("inline", recorder={}, second={"PLUGIN": "recorder"}, screener={})
    Recorder.act["screener"] = lambda event: not asked.append(event.name)
    host.track(None, "x")
    assert asked == ["x", "x"]


def test_what_a_plugin_does_not_want_is_skipped_all_the_same(configure, monkeypatch):
    monkeypatch.setattr(Recorder, "needs_identity", True)
    configure("inline", recorder={}, screener={})
    host.track(None, "nobody's")
    host.track(None, "somebody's", user_id=5)
    assert seen("recorder") == ["somebody's"]


def test_without_an_override_nobody_is_asked(configure, monkeypatch):
    """The default costs nothing: it is never called."""
    monkeypatch.setattr(runners.Runner, "_passes", lambda *_: pytest.fail("asked"))
    configure("inline", recorder={}, snippet={}, filter={})
    assert host.track(None, "x")
    assert seen("recorder") == ["x"]


@pytest.mark.parametrize("error", [LookupError("with hush"), RecursionError("deep")], ids=repr)
def test_one_that_raises_has_no_opinion(configure, caplog, error):
    def fail(event):
        raise error

    configure("inline", recorder={}, screener=SCREENER, second={"PLUGIN": "screener"})
    Recorder.act["screener"] = fail
    Recorder.act["second"] = only("a", "b")
    for name in "abc":
        host.track(None, name)
    assert seen("recorder") == ["a", "b"]
    [record] = caplog.records
    assert record.getMessage().startswith("plugin screener: screen failed, and has no opinion: ")
    assert "hush" not in caplog.text


def test_another_trouble_is_told_too(configure, caplog):
    configure("inline", recorder={}, screener={})
    for error in (LookupError("first"), LookupError("again"), ValueError("other")):

        def fail(event, error=error):
            raise error

        Recorder.act["screener"] = fail
        host.track(None, "x")
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["first", "other"]


@transactional
def test_a_screener_may_ask_the_database(database, configure):
    from tests.site.models import Product

    Product.objects.create(name="bad")
    configure("outbox", recorder={}, screener={})
    Recorder.act["screener"] = lambda event: not Product.objects.filter(name=event.name).exists()
    track("good", "bad")
    rounds(database, "recorder")
    assert account(database, "recorder") == {"accepted": 2, "delivered": 1, "skipped": 1}


def test_a_screener_may_not_track(configure, caplog):
    """It runs in a lane: what it tracked would be screened again, and so on."""
    configure("inline", recorder={}, screener={})
    Recorder.act["screener"] = lambda event: host.track(None, "another") is None
    host.track(None, "x")
    assert seen("recorder") == ["x"]
    assert "called from within a hook of 'recorder'" in caplog.text
