"""What an event is made of: conversions, copies and ids."""

from __future__ import annotations

import datetime as dt
import enum
import os
import time
import uuid
import warnings
from collections import OrderedDict, UserDict
from decimal import Decimal
from types import MappingProxyType
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import models
from django.utils import timezone
from django.utils.functional import lazystr
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy, override

from pluginhost import Batch, InvalidEvent, host
from pluginhost.delivery import memory
from pluginhost.events import new_message_id
from tests.site.models import Country, Order, Voucher


class Plan(models.TextChoices):
    PRO = "pro", "Professional"


class Level(enum.IntEnum):
    HIGH = 3


class Whole(int):
    pass


class Broken(float):
    pass


class Pair(enum.Enum):
    BOTH = ("a", 2)


class Plain(enum.Enum):
    PRO = "pro"


class Text(str):
    __slots__ = ()

    def __str__(self):
        return "something else"


@pytest.fixture
def arrived(configure):
    """Track properties, and return those of the event."""

    def arrived(properties, **keys):
        configure(recorder={}, **keys)
        assert host.track(None, "something", properties)
        return memory.events[-1].properties

    return arrived


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (dt.datetime(2024, 7, 1, 12, tzinfo=dt.UTC), "2024-07-01T12:00:00Z"),
        (dt.datetime(2024, 7, 1, 12, 0, 0, 5, tzinfo=BERLIN), "2024-07-01T10:00:00.000005Z"),
        (dt.datetime(2024, 7, 1, 12), "2024-07-01T10:00:00Z"),  # naive: the current time zone
        (dt.date(2024, 7, 1), "2024-07-01"),
        (dt.time(12, 30), "12:30:00"),
        (dt.timedelta(minutes=1, milliseconds=500), 60.5),
        (Decimal("9.99"), 9.99),
        (Decimal(10), 10),
        (Decimal("1E+2"), 100.0),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (lazystr("later"), "later"),
        (lazystr(mark_safe("<b>")), "<b>"),
        (mark_safe("<b>"), "<b>"),
        (Text("itself"), "itself"),
        (Plan.PRO, "pro"),
        (Level.HIGH, 3),
        (Pair.BOTH, ["a", 2]),
        (Whole(3), 3),
        (Broken(2.5), 2.5),
        ((1, (2,)), [1, [2]]),
        ({1}, [1]),
        (frozenset({"a"}), ["a"]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (UserDict(a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        ({Plan.PRO: 1, Text("b"): 2, mark_safe("c"): 3}, {"pro": 1, "b": 2, "c": 3}),
        (-0.0, -0.0),
    ],
    ids=str,
)
def test_conversions(arrived, value, expected):
    with timezone.override("Europe/Berlin"):
        got = arrived({"a": value})["a"]
    assert got == expected
    assert type(got) is type(expected)


def test_a_translation_is_that_of_the_moment(arrived):
    with override("de"):
        assert arrived({"day": gettext_lazy("Monday")}) == {"day": "Montag"}


@pytest.mark.parametrize("name", [mark_safe("a <b>"), lazystr("a <b>"), lazystr(mark_safe("a <b>"))])
def test_names_and_ids_may_be_lazy_or_safe_strings(configure, name):
    configure(recorder={})
    assert host.track(None, name, user_id=name, anonymous_id=name, key="k")
    event = memory.events[-1]
    assert event.name == event.user_id == event.anonymous_id == "a <b>"
    assert not isinstance(event.name, SafeString)


@pytest.mark.parametrize("name", [Plan.PRO, Plain.PRO])
def test_a_name_may_be_an_enum(configure, name):
    configure(recorder={})
    assert host.track(None, name)
    assert memory.events[-1].name == "pro"


@pytest.mark.parametrize(("given", "stored"), [(5, "5"), (uuid.UUID(int=5), str(uuid.UUID(int=5))), ("ada", "ada")])
def test_ids_become_text(configure, given, stored):
    configure(recorder={})
    host.alias(None, given, given, anonymous_id=given)
    event = memory.events[-1]
    assert (event.previous_id, event.user_id, event.anonymous_id) == (stored, stored, stored)


def test_what_the_caller_changes_later_changes_nothing(configure):
    configure(recorder={})
    properties = {"items": [{"price": 1}], "tags": {"a"}}
    tuning = {"recorder": {"colour": ["red"]}}

    with host.batch():
        host.track(None, "something", properties, plugins=tuning)
        properties["items"][0]["price"] = 2
        properties["items"].append(3)
        properties["more"] = 1
        tuning["recorder"]["colour"].append("green")

    event = memory.events[-1]
    assert event.properties == {"items": [{"price": 1}], "tags": ["a"]}
    assert event.tuning("recorder") == {"colour": ["red"]}
    assert event.tuning("other") == {}


def test_the_timestamp(configure):
    configure(recorder={})
    before = dt.datetime.now(dt.UTC)
    host.track(None, "now")
    assert before <= memory.events[-1].timestamp <= dt.datetime.now(dt.UTC)

    with timezone.override("Europe/Berlin"):
        host.track(None, "then", timestamp=dt.datetime(2024, 7, 1, 12))
    assert memory.events[-1].timestamp == dt.datetime(2024, 7, 1, 10, tzinfo=dt.UTC)
    assert memory.events[-1].timestamp.utcoffset() == dt.timedelta(0)


@pytest.mark.parametrize(
    ("value", "stored"), [(12.5, 12.5), (3, 3), (Decimal("2.5"), 2.5), (Level.HIGH, 3), (None, None)]
)
def test_the_value(configure, value, stored):
    configure(recorder={})
    host.track(None, "paid", value=value)
    assert memory.events[-1].value == stored


@pytest.mark.parametrize(
    ("subject", "model", "pk"),
    [
        (Order(pk=7), "shop.Order", "7"),
        (Country(code="de"), "shop.Country", "de"),
        (Voucher(id=uuid.UUID(int=9)), "shop.Voucher", str(uuid.UUID(int=9))),
        (User(pk=3), "auth.User", "3"),
    ],
)
def test_the_subject(configure, subject, model, pk):
    configure(recorder={})
    host.track(None, "something", subject=subject)
    assert (memory.events[-1].subject.model, memory.events[-1].subject.pk) == (model, pk)


def test_the_subject_of_a_deferred_or_proxy_instance_is_its_own_model(configure):
    class Special(Order):
        class Meta:
            proxy = True
            app_label = "shop"

    configure(recorder={})
    host.track(None, "something", subject=Special(pk=7))
    assert memory.events[-1].subject.model == "shop.Order"


def test_a_composite_key_is_no_subject(configure):
    class Line(models.Model):
        pk = models.CompositePrimaryKey("order", "position")
        order = models.IntegerField()
        position = models.IntegerField()

        class Meta:
            app_label = "shop"

    configure(recorder={})
    with pytest.raises(InvalidEvent, match=r"^subject: has a composite primary key"):
        host.track(None, "something", subject=Line(order=1, position=2))


def test_the_source_may_be_a_user(configure):
    configure(recorder={})
    for user, expected in ((User(pk=5), "5"), (AnonymousUser(), None), (None, None)):
        host.track(user, "something")
        assert memory.events[-1].user_id == expected
    host.track(User(pk=5), "something", user_id=6)
    assert memory.events[-1].user_id == "6"


def test_a_key_makes_one_id_of_the_same_thing(configure):
    configure(recorder={})
    first = host.track(None, "paid", key="order:42")
    assert first == host.track(None, "paid", {"other": 1}, key="order:42") == "1dab6189-a2a5-57df-be94-dde1ecaab1f3"
    assert uuid.UUID(first).version == 5
    assert host.track(None, "paid", key="order:43") != first
    assert host.track(None, "shipped", key="order:42") != first
    assert host.track(None, mark_safe("paid"), key="order:42") == first


def test_message_ids_are_version_7(configure):
    before = time.time_ns() // 1_000_000
    ids = [uuid.UUID(new_message_id()) for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    assert len(set(ids)) == 1000
    assert {(made.version, made.variant) for made in ids} == {(7, uuid.RFC_4122)}
    assert all(before <= made.int >> 80 <= after for made in ids)


def test_a_fork_makes_other_ids():
    new_message_id()
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that other tests have left
        child = os.fork()
    if child == 0:
        os.write(write, "\n".join(new_message_id() for _ in range(50)).encode())
        os._exit(0)
    own = {new_message_id()[15:] for _ in range(50)}
    os.waitpid(child, 0)
    theirs = {line[15:] for line in os.read(read, 65536).decode().split("\n")}
    os.close(read)
    os.close(write)
    assert len(own) == len(theirs) == 50
    assert not own & theirs


def test_a_batch_is_a_sequence(configure):
    configure(recorder={})
    for name in "abc":
        host.track(None, name)
    batch = Batch(list(memory.events), attempt=2)
    assert [event.name for event in batch] == ["a", "b", "c"]
    assert batch[1].name == "b"
    assert (len(batch[1:]), batch[1:].attempt, repr(batch[1:])) == (2, 2, "<Batch of 2, attempt 2>")


def test_an_event_cannot_be_changed(configure):
    configure(recorder={})
    host.track(None, "something")
    with pytest.raises(AttributeError):
        memory.events[-1].name = "else"


@pytest.mark.parametrize("previous", [None, ""], ids=repr)
def test_an_alias_needs_both_ids(configure, previous):
    configure(recorder={})
    with pytest.raises(InvalidEvent, match="previous_id: is missing"):
        host.alias(None, previous, user_id="ada")
