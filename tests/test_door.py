"""The strict door: what is refused, with which path, and that nothing of it harms a view."""

from __future__ import annotations

import datetime as dt
import enum
import itertools
import json
from collections.abc import Mapping
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.utils.functional import lazystr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pluginhost import InvalidEvent, host
from pluginhost.delivery import memory
from tests.site.models import Order, Voucher

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(TEXT, JSON, max_size=5))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_json_can_hold_arrives_as_it_was(configure, properties):
    configure(recorder={}, MASKED_NAMES=[])

    host.track(None, "something", properties)

    arrived = memory.events[-1].properties
    assert json.dumps(arrived, sort_keys=True) == json.dumps(properties, sort_keys=True)  # 1, 1.0 and True differ


ANYTHING = st.recursive(
    JSON
    | st.floats()
    | st.integers()
    | st.text()
    | st.binary(max_size=5)
    | st.decimals()
    | st.datetimes()
    | st.dates()
    | st.timedeltas()
    | st.uuids()
    | st.complex_numbers()
    | st.builds(object),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(ANYTHING, ANYTHING, ANYTHING)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_that_a_caller_passes_breaks_a_view(configure, name, properties, value):
    configure(recorder={}, STRICT=False)
    memory.events.clear()
    accepted = host.track(None, "x", {"a": properties})
    assert [event.message_id for event in memory.events] == ([accepted] if accepted else [])
    host.track(None, name, properties)
    host.track(None, "x", user_id=value, anonymous_id=name, value=properties)
    host.track(value, "x", timestamp=name, key=properties, subject=value, plugins=name, using=None)
    host.alias(None, name, value)
    host.identify(None, properties, user_id=value)


class Mute(str):
    __slots__ = ()

    def __str__(self):
        raise RuntimeError("says nothing")


class Raising(Mapping):
    def __getitem__(self, key):
        raise KeyError(key)

    def __iter__(self):
        raise RuntimeError("no keys")

    def __len__(self):
        return 1


class Endless(Raising):
    """One that says it is empty."""

    def __getitem__(self, key):
        return None

    def __iter__(self):
        return map(str, itertools.count())

    def __len__(self):
        return 0


class EndlessList(list):
    def __iter__(self):
        return itertools.repeat(None)


class Growing(Raising):
    """One that lengthens the list which it is in while it is read."""

    def __init__(self, around):
        self.around = around

    def __iter__(self):
        self.around.append(self)
        return iter(())


def growing():
    around = []
    around.append(Growing(around))
    return around


class Renaming(dict):
    """One whose items are not those that its keys and values are."""

    def items(self):
        return [(f"my_{key}", value) for key, value in super().items()]


class Odd(enum.Enum):
    ONE = object()


def nested(depth):
    value = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def cycle():
    value = {"b": []}
    value["b"].append(value)
    return value


def laughs():
    value = [None] * 10
    for _ in range(8):
        value = [value] * 10
    return value


LATE = dt.datetime.max.replace(tzinfo=dt.timezone(-dt.timedelta(hours=2)))
REFUSED = [
    ({"a": float("nan")}, "properties.a", "nan is not a number of JSON"),
    ({"a": [1, {"b": float("inf")}]}, "properties.a[1].b", "inf is not"),
    ({"a": Decimal("NaN")}, "properties.a", "NaN is not"),
    ({"a": Decimal("sNaN")}, "properties.a", "sNaN is not"),
    ({"a": Decimal("1e400")}, "properties.a", "inf is not"),
    ({"a": Decimal(2**63)}, "properties.a", "more than 64 bits"),
    ({"a": 2**63}, "properties.a", "more than 64 bits"),
    ({"a": -(2**63) - 1}, "properties.a", "more than 64 bits"),
    ({"a": cycle()}, "properties.a.b[0]", "contains itself"),
    ({"a": "x\0"}, "properties.a", "NUL"),
    ({"a": lazystr("x\0")}, "properties.a", "NUL"),
    ({"a\0": 1}, r"properties.'a\x00'", "NUL"),
    ({"a": "\ud800"}, "properties.a", "surrogate"),
    ({"\udfff": 1}, r"properties.'\udfff'", "surrogate"),
    ({"a": {1: 2}}, "properties.a", "the key 1 is not a string"),
    ({None: 2}, "properties", "the key None is not a string"),
    ({lazystr("a"): 1}, "properties", "is not a string"),
    (nested(11), "properties" + ".a" * 10, "deeper than 10 levels"),
    ({"a": laughs()}, None, "larger than 32768 bytes"),
    ({"a": "x" * 40_000}, "properties.a", "larger than 32768 bytes"),
    ({"a": "\x01" * 6_000}, "event", "has 36"),
    ({"k" * 40_000: 1}, "properties.'" + "k" * 79, "larger than 32768 bytes"),
    ({"a": 1, "k" * 40_000: (1, 2)}, "properties.'" + "k" * 79, "larger than 32768 bytes"),
    ({"a": {"k" * 40_000: 1}}, "properties.a.'" + "k" * 79, "larger than 32768 bytes"),
    ({"a": b"x"}, "properties.a", "JSON can't hold a bytes"),
    ({"a": object()}, "properties.a", "JSON can't hold a object"),
    ({"a": (n for n in "ab")}, "properties.a", "JSON can't hold a generator"),
    ({"a": range(3)}, "properties.a", "JSON can't hold a range"),
    ({"a": Odd.ONE}, "properties.a", "JSON can't hold a object"),
    ({"a": 1j}, "properties.a", "JSON can't hold a complex"),
    ({"a": Order(number="1")}, "properties.a", "a model instance; pass its pk"),
    ({"a": Order.objects.all()}, "properties.a", "JSON can't hold a QuerySet"),
    ({"a": dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=2)))}, "properties.a", "years 1 to 9999"),
    ({"a": Raising()}, "properties.a", "it raised RuntimeError"),
    (Raising(), "properties", "it raised RuntimeError"),
    ({"a": Endless()}, "properties.a", "larger than 32768 bytes"),
    ({"a": [Endless()]}, "properties.a[0]", "larger than 32768 bytes"),
    ({"a": EndlessList()}, "properties.a", "larger than 32768 bytes"),
    ({"a": lazystr(Mute("x"))}, "properties.a", "it raised RuntimeError"),
    ([("a", 1)], "properties", "is of type list; it must be a dict"),
    ("a", "properties", "is of type str; it must be a dict"),
]


@pytest.mark.parametrize(
    ("properties", "path", "problem"), REFUSED, ids=[f"{path}-{n}" for n, (_, path, _) in enumerate(REFUSED)]
)
def test_properties_that_are_refused(configure, caplog, properties, path, problem):
    configure(recorder={})
    with pytest.raises(InvalidEvent) as raised:
        host.track(None, "something", properties)
    assert problem in raised.value.problem
    if path is not None:
        assert raised.value.path == path
    assert str(raised.value) == f"{raised.value.path}: {raised.value.problem}"

    configure(recorder={}, STRICT=False)
    before = host.counts.get("invalid", 0)
    assert host.track(None, "something", properties) is None
    assert host.counts["invalid"] == before + 1
    assert "event 'something' refused: " in caplog.text
    assert problem in caplog.text
    assert not memory.events


def test_traits_are_named_as_such(configure):
    configure(recorder={})
    with pytest.raises(InvalidEvent, match=r"^traits\.age: nan"):
        host.identify(None, {"age": float("nan")})


ARGUMENTS = [
    ({"name": ""}, "name", "is empty"),
    ({"name": " \n"}, "name", "is empty"),
    ({"name": "x" * 201}, "name", "has 201 characters; 200 are allowed"),
    ({"name": None}, "name", "is of type NoneType; it must be a string"),
    ({"name": 3}, "name", "is of type int"),
    ({"name": "a\0"}, "name", "NUL"),
    ({"name": "\ud800"}, "name", "surrogate"),
    ({"name": lazystr(Mute("x"))}, "name", "it raised RuntimeError"),
    ({"source": "ada"}, "source", "is of type str; it must be a request, a user or None"),
    ({"user_id": True}, "user_id", "is of type bool"),
    ({"user_id": 1.0}, "user_id", "is of type float; it must be a string, an integer or a UUID"),
    ({"user_id": "x" * 256}, "user_id", "has 256 characters; 255 are allowed"),
    ({"user_id": "a\0"}, "user_id", "NUL"),
    ({"anonymous_id": b"x"}, "anonymous_id", "is of type bytes"),
    ({"anonymous_id": "\ud800"}, "anonymous_id", "surrogate"),
    ({"value": True}, "value", "is of type bool; it must be a number"),
    ({"value": "3"}, "value", "is of type str"),
    ({"value": float("nan")}, "value", "nan is not"),
    ({"value": 2**64}, "value", "more than 64 bits"),
    ({"timestamp": "2024-01-01"}, "timestamp", "is of type str; it must be a datetime"),
    ({"timestamp": dt.date(2024, 1, 1)}, "timestamp", "is of type date"),
    ({"timestamp": LATE}, "timestamp", "is outside of the years 1 to 9999 in UTC"),
    ({"key": ""}, "key", "must be a string that is not empty"),
    ({"key": 3}, "key", "must be a string"),
    ({"key": "\0"}, "key", "NUL"),
    ({"subject": Order()}, "subject", "is not saved"),
    ({"subject": "order"}, "subject", "is of type str; it must be a model instance"),
    ({"subject": Voucher(id="a\0")}, "subject.pk", "NUL"),
    ({"plugins": {"recoder": False}}, "plugins.recoder", "Did you mean 'recorder'? Enabled are: recorder"),
    ({"plugins": {"recorder": {"color": 1}}}, "plugins.recorder.color", "It takes: colour"),
    ({"plugins": {"recorder": 3}}, "plugins.recorder", "must be True, False or a dict"),
    ({"plugins": {"recorder": {"colour": b""}}}, "plugins.recorder.colour", "JSON can't hold a bytes"),
    ({"plugins": ["recorder"]}, "plugins", "is of type list"),
    ({"using": "nowhere"}, "using", "is no database. There are: default"),
]


@pytest.mark.parametrize(
    ("arguments", "path", "problem"), ARGUMENTS, ids=[f"{path}-{n}" for n, (_, path, _) in enumerate(ARGUMENTS)]
)
def test_arguments_that_are_refused(configure, caplog, arguments, path, problem):
    arguments = dict(arguments)
    positional = arguments.pop("source", None), arguments.pop("name", "something")
    configure(recorder={})
    with pytest.raises(InvalidEvent) as raised:
        host.track(*positional, **arguments)
    assert raised.value.path == path
    assert problem in raised.value.problem

    configure(recorder={}, STRICT=False)
    assert host.track(*positional, **arguments) is None
    assert f" refused: {path}: " in caplog.text
    assert not memory.events


def test_an_unknown_keyword_is_an_error_of_the_program(configure):
    configure(recorder={}, STRICT=False)
    with pytest.raises(TypeError, match="unexpected keyword arguments: propertys"):
        host.track(None, "something", propertys={})


def test_a_source_that_raises_breaks_no_view(configure, caplog):
    class User:
        is_authenticated = True

        @property
        def pk(self):
            raise RuntimeError("no pk")

    configure(recorder={})
    with pytest.raises(InvalidEvent, match=r"^event: raised RuntimeError\('no pk'\)") as raised:
        host.track(User(), "something")
    assert isinstance(raised.value.__cause__, RuntimeError)

    configure(recorder={}, STRICT=False)
    assert host.track(User(), "something") is None
    assert "no pk" in caplog.text


def test_an_invalid_event_is_not_its_own_cause(configure):
    configure(recorder={})
    with pytest.raises(InvalidEvent) as raised:
        host.track(None, "")
    assert raised.value.__cause__ is None


def test_bad_input_is_told_even_if_no_plugin_is_to_have_it(configure):
    configure()
    with pytest.raises(InvalidEvent):
        host.track(None, "")
    with pytest.raises(InvalidEvent, match=r"^plugins\.mongo: is no alias\. Enabled are: none$"):
        host.track(None, "good", plugins={"mongo": False})
    assert host.track(None, "good") is None


def test_the_limits_themselves_are_allowed(configure):
    configure(recorder={})
    assert host.track(None, "x" * 200, nested(10), user_id="u" * 255)
    assert host.track(None, "x", {"a": 2**63 - 1, "b": -(2**63)})
    assert host.track(None, "x", {"a": "x" * 32_000})
    assert host.track(None, "x", {"a": [[]] * 5, "b": [nested(3)] * 2})  # shared is no cycle
    assert host.track(None, "x", user_id="", anonymous_id="")
    assert memory.events[-1].user_id is memory.events[-1].anonymous_id is None


def test_a_mapping_of_another_class_is_read_by_its_items(configure):
    configure(recorder={})
    host.track(None, "x", Renaming(token="t", colour="red"))
    assert memory.events[-1].properties == {"my_token": "[masked]", "my_colour": "red"}


def test_a_list_that_grows_while_it_is_read(configure):
    configure(recorder={})
    host.track(None, "x", {"a": growing()})
    assert memory.events[-1].properties == {"a": [{}]}


def test_a_user_who_is_not_saved_is_nobody(configure):
    configure(recorder={})
    host.track(User(username="new"), "something")
    assert memory.events[-1].user_id is None
