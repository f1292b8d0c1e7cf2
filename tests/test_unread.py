"""``Plugin.unread``: what a plugin does not look at is not read for it, and is kept all the same."""

from __future__ import annotations

import pytest

from pluginhost import ConfigurationError, PermanentError, host
from pluginhost.events import Context
from pluginhost.models import Delivery
from tests.samples import Recorder
from tests.steps import account, raising, rounds

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)
HEADERS = {"HTTP_USER_AGENT": "Mozilla/5.0 Firefox/140.0"}


@pytest.fixture
def folded(database, configure, monkeypatch, rf):
    """Tracks one event for a plugin that leaves this unread, and gives it as its hook had it."""

    def fold(unread, **more):
        monkeypatch.setattr(Recorder, "unread", frozenset(unread))
        configure("outbox", folder={}, **more)
        with host.batch():
            host.track(rf.get("/tea/", **HEADERS), "paid", {"plan": "pro"}, user_id=5, value=3)
            host.track(None, "second")
        rounds(database, "folder")
        return Recorder.seen.get("folder", [None])[0]

    return fold


def test_all_is_read_otherwise(folded):
    event = folded(())
    assert event.properties == {"plan": "pro"}
    assert event.context.user_agent == "Mozilla/5.0 Firefox/140.0"


def test_a_set_will_do(database, configure, monkeypatch):
    monkeypatch.setattr(Recorder, "unread", {"properties"})
    configure("outbox", folder={})
    host.track(None, "paid", {"plan": "pro"}, using=database)
    rounds(database, "folder")
    assert [event.properties for event in Recorder.seen["folder"]] == [{}]
    assert account(database, "folder") == {"accepted": 1, "delivered": 1}


@pytest.mark.parametrize("wrong", [["properties"], "properties", None], ids=repr)
def test_anything_else_is_an_error_at_the_start(configure, monkeypatch, wrong):
    monkeypatch.setattr(Recorder, "unread", wrong)
    with pytest.raises(ConfigurationError, match=r"Folder\.unread is .*") as raised:
        configure("outbox", folder={})
        host.registry  # noqa: B018
    assert raised.value.id == "pluginhost.E004"


@pytest.mark.parametrize("unread", [["properties"], ["context"], ["properties", "context"]], ids="+".join)
def test_it_is_empty_and_the_rest_is_there(folded, unread):
    event = folded(unread)
    assert (event.name, event.user_id, event.value, event.type) == ("paid", "5", 3, "track")
    assert event.properties == ({} if "properties" in unread else {"plan": "pro"})
    assert (event.context == Context()) is ("context" in unread)


def test_nothing_else_can_be_left_unread(folded):
    assert folded(["name", "value"]).value == 3


def test_what_a_screener_looks_at_is_read(folded):
    screened = []
    Recorder.act["screener"] = lambda event: not screened.append(event.properties)
    folded(["properties"], screener={})
    assert screened == [{"plan": "pro"}, {}]


def test_a_dead_letter_has_all_of_it(database, folded):
    Recorder.act["folder"] = raising(lambda: PermanentError("refused"))
    folded(["properties", "context"])
    Recorder.act.clear()
    assert account(database, "folder") == {"accepted": 2, "dead": 2}
    first = Delivery.objects.using(database).order_by("id").first()
    assert first.event_name == "paid"
    assert b'"plan":"pro"' in bytes(first.payload)
    assert b"Firefox" in bytes(first.payload)
