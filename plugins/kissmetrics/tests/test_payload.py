"""From an event to a call, with literals."""

from __future__ import annotations

import datetime as dt
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluginhost import Context, Event, PermanentError, SkipEvent
from pluginhost_kissmetrics.payload import MAX_NAME, MAX_VALUE, Call, call, flat, moment, parameters, query

NOON = dt.datetime(2025, 11, 21, 12, 0, 0, 999_999, tzinfo=dt.UTC)
KEY = "0123456789abcdef0123456789abcdef01234567"


def event(**fields) -> Event:
    return Event(
        **{"type": "track", "name": "Signed Up", "message_id": "m1", "timestamp": NOON, "user_id": "7", **fields}
    )


def test_an_event_is_recorded():
    made = call(event(properties={"plan": "pro", "seats": 3}), "kissmetrics")

    assert made == Call("/e", "7", "Signed Up", {"plan": "pro", "seats": "3"})
    assert parameters(made, KEY, moment(event())) == {
        "_k": KEY,
        "_p": "7",
        "_n": "Signed Up",
        "_t": "1763726400",
        "_d": "1",
        "plan": "pro",
        "seats": "3",
    }


def test_traits_are_set():
    made = call(event(type="identify", name="identify", properties={"gender": "female"}), "kissmetrics")

    assert made == Call("/s", "7", "", {"gender": "female"})
    assert parameters(made, KEY, 5) == {"_k": KEY, "_p": "7", "_t": "5", "_d": "1", "gender": "female"}


@pytest.mark.parametrize("traits", [{}, {"plan": None, "note": ""}])
def test_no_traits_are_nothing_to_set(traits):
    with pytest.raises(SkipEvent, match="no traits"):
        call(event(type="identify", name="identify", properties=traits), "kissmetrics")


def test_two_ids_become_one_person():
    made = call(event(type="alias", name="alias", previous_id="a1", user_id="7"), "kissmetrics")

    assert made == Call("/a", "a1", "7")
    assert parameters(made, KEY, 5) == {"_k": KEY, "_p": "a1", "_n": "7", "_t": "5", "_d": "1"}


@pytest.mark.parametrize(
    ("previous_id", "user_id", "error", "reason"),
    [
        (None, "7", SkipEvent, "one is missing"),
        ("", "7", SkipEvent, "one is missing"),
        ("a1", None, SkipEvent, "one is missing"),
        ("7", "7", SkipEvent, "the same"),
        (" 7", "7 ", SkipEvent, "the same"),
        ("a:7", "a,7", SkipEvent, "the same"),
        ("None", "7", PermanentError, "stands for nobody"),
        ("a1", "anonymous", PermanentError, "stands for nobody"),
        ("AnonymousUser", "7", PermanentError, "stands for nobody"),
        ("a1", "0", PermanentError, "stands for nobody"),
        ("UNDEFINED", "7", PermanentError, "stands for nobody"),
        ("  ", "7", PermanentError, "stands for nobody"),
        ("x" * 256, "7", PermanentError, "too long"),
    ],
)
def test_nobody_is_merged_by_mistake(previous_id, user_id, error, reason):
    odd = event(type="alias", name="alias", previous_id=previous_id, user_id=user_id, anonymous_id="an anonymous id")

    with pytest.raises(error, match=reason):
        call(odd, "kissmetrics")


def test_page_views_are_recorded_only_by_a_name():
    seen = event(
        type="page",
        name="Prices",
        properties={"tab": "teams"},
        context=Context(url="https://example.com/prices/", path="/prices/", referrer="https://example.org/"),
    )

    with pytest.raises(SkipEvent):
        call(seen, "kissmetrics")
    assert call(seen, "kissmetrics", page_event="Page View") == Call(
        "/e",
        "7",
        "Page View",
        {
            "Viewed URL": "https://example.com/prices/",
            "Referrer": "https://example.org/",
            "Title": "Prices",
            "tab": "teams",
        },
    )


def test_a_page_that_is_named_by_its_path_has_no_title():
    seen = event(type="page", name="/prices/", context=Context(path="/prices/"))

    assert call(seen, "kissmetrics", page_event="Page View").properties == {"Viewed URL": "/prices/"}


def test_without_a_person_nothing_is_sent():
    with pytest.raises(SkipEvent, match="no person"):
        call(event(user_id=None), "kissmetrics")


# --- the value ---


@pytest.mark.parametrize(
    ("option", "tuning", "expected"),
    [
        ("Value", {}, {"Value": "9.5"}),
        ("Billing Amount", {}, {"Billing Amount": "9.5"}),
        (None, {}, {}),
        ("Value", {"value_as": "Billing Amount"}, {"Billing Amount": "9.5"}),
        (None, {"value_as": "Billing Amount"}, {"Billing Amount": "9.5"}),
        ("Value", {"value_as": None}, {}),
        ("Value", {"value_as": "_t"}, {"t": "9.5"}),
    ],
)
def test_the_value_is_a_property(option, tuning, expected):
    paid = event(value=9.5, plugins={"km": tuning})

    assert call(paid, "km", value_property=option).properties == expected


def test_the_value_replaces_no_property():
    paid = event(value=9.5, properties={"value": 3})

    assert call(paid, "km", value_property="Value").properties == {"value": "3"}


def test_no_value_is_no_property_but_nought_is():
    assert call(event(), "km", value_property="Value").properties == {}
    assert call(event(value=0), "km", value_property="Value").properties == {"Value": "0"}


@pytest.mark.parametrize("name", ["", "  ", "__", 7, ["Billing Amount"], True])
def test_a_value_as_what_is_no_name_is_refused(name):
    with pytest.raises(PermanentError, match="is no name for a property"):
        call(event(value=9.5, plugins={"km": {"value_as": name}}), "km")


# --- properties ---


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("pro", "pro"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-3, "-3"),
        (2**63 - 1, "9223372036854775807"),
        (9.5, "9.5"),
        (5.0, "5"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (1e16, "10000000000000000"),
        (1.5e-7, "0.00000015"),
        ("2026-11-21T12:00:00Z", "2026-11-21T12:00:00Z"),
        (["a", 1, True, None, ""], "a,1,true"),
        ([["a", "b"], ["c"]], "a,b,c"),
        ([{"price": 1}, "a"], "a"),
        (" kept ", " kept "),
        ("grün 🌱", "grün 🌱"),
    ],
)
def test_values_are_texts(value, text):
    assert flat({"name": value}) == {"name": text}


@pytest.mark.parametrize("value", [None, "", [], {}, [None], [{}], float("nan"), float("inf")])
def test_what_says_nothing_is_left_out(value):
    assert flat({"name": value, "plan": "pro"}) == {"plan": "pro"}


def test_one_level_is_all_there_is():
    assert flat({"order": {"id": 7, "address": {"city": "Ulm"}}, "": {"x": 1}, "y": {"": 2}}) == {
        "order.id": "7",
        "order.address.city": "Ulm",
        "x": "1",
        "y": "2",
    }


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        (" plan ", "plan"),
        ("_plan", "plan"),
        ("_k", "k"),
        ("__t", "t"),
        (" _ _n ", "n"),
        ("\t_p", "p"),
        ("x" * 300, "x" * 255),
        ("a:b,c", "a:b,c"),
        ("a_b_", "a_b_"),
        ("_T", "T"),
    ],
)
def test_names_are_stripped_cut_and_never_reserved(given_name, name):
    assert flat({given_name: 1}) == {name: "1"}


@pytest.mark.parametrize("name", ["", " ", "_", "__", " _ "])
def test_what_has_no_name_is_left_out(name):
    assert flat({name: 1}) == {}


def test_where_two_become_one_name_that_which_had_it_stays():
    assert flat({"_plan": "renamed", "plan": "given"}) == {"plan": "given"}
    assert flat({"plan": "given", "_plan": "renamed"}) == {"plan": "given"}


def test_long_values_are_cut():
    assert flat({"text": "ä" * 600}) == {"text": "ä" * 512}


def test_no_property_replaces_what_is_the_protocols():
    properties = dict.fromkeys(["_k", "_p", "_n", "_t", "_d", "__d"], "forged")
    sent = parameters(call(event(properties=properties), "km"), KEY, 5)

    assert {name: sent[name] for name in ("_k", "_p", "_n", "_t", "_d")} == {
        "_k": KEY,
        "_p": "7",
        "_n": "Signed Up",
        "_t": "5",
        "_d": "1",
    }
    # Not even in a call that was made some other way.
    assert parameters(Call("/s", "7", "", {"_p": "8", "_d": "0"}), KEY, 5)["_p"] == "7"


# --- time ---


def test_the_time_is_the_events_own_in_whole_seconds():
    assert moment(event()) == 1763726400
    assert moment(event(timestamp=NOON + dt.timedelta(microseconds=1))) == 1763726401


def test_what_is_too_old_to_be_kept_is_refused():
    assert moment(event(timestamp=dt.datetime(2009, 1, 1, tzinfo=dt.UTC))) == 1230768000
    with pytest.raises(PermanentError, match="before 2009"):
        moment(event(timestamp=dt.datetime(2008, 12, 31, 23, 59, 59, tzinfo=dt.UTC)))


# --- the query string ---


def test_the_query_is_percent_encoded():
    assert query({"_p": "bob@bob.com", "a b": "ü&=+/🌱"}) == ("_p=bob%40bob.com&a%20b=%C3%BC%26%3D%2B%2F%F0%9F%8C%B1")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
names = st.text() | st.sampled_from(["_k", "_p", "_n", "_t", "_d", "__k", " _p", "K", "x" * 300])


@given(
    properties=st.dictionaries(names, json_values, max_size=8),
    name=st.text(min_size=1, max_size=200).filter(str.strip),
    value=st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    type_=st.sampled_from(["track", "page", "identify"]),
)
def test_whatever_happens_is_within_the_limits(properties, name, value, type_):
    odd = event(type=type_, name=name, properties=properties, value=value)
    try:
        made = call(odd, "km", page_event="Page View", value_property="Value")
    except SkipEvent:
        assert type_ == "identify"
        assert flat(properties) == {}
        return
    sent = parameters(made, KEY, moment(odd))

    expected = {"_k": KEY, "_p": "7", "_t": "1763726400", "_d": "1"}
    expected |= {"track": {"_n": name.strip()}, "page": {"_n": "Page View"}, "identify": {}}[type_]
    assert {name: text for name, text in sent.items() if name.startswith("_")} == expected
    for parameter, text in sent.items():
        assert 0 < len(parameter) <= MAX_NAME
        assert parameter == parameter.strip()
        assert 0 < len(text) <= MAX_VALUE
    assert parse_qsl(query(sent), strict_parsing=True, keep_blank_values=True) == list(sent.items())
