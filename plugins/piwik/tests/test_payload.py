"""From an event to the parameters of its hits, with literals."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pluginhost import Context, PermanentError
from pluginhost.events import Event
from pluginhost_piwik.actions import Vocabulary
from pluginhost_piwik.payload import Site, hits
from plugins.piwik.tests.helpers import NOON, NOON_UNIX, NOW, PAGE, event

SITE = Site(id=1)
WITH_TOKEN = Site(id=1, has_token=True, key=b"key")
BASE = {"idsite": "1", "rec": "1", "apiv": "1", "cdt": NOON_UNIX}
WORDS = Vocabulary(goals={"signed up": 3}, dimensions={"plan": 2, "seats": 4})


def only(found: list[dict[str, str]]) -> dict[str, str]:
    assert len(found) == 1
    return found[0]


def test_a_page_view():
    view = event("Products", "page", context=PAGE, message_id="01935f2e-8a00-7000-8000-000000000000")

    hit = only(hits(view, WITH_TOKEN, NOW))

    assert hit == {
        **BASE,
        "action_name": "Products",
        "pv_id": hit["pv_id"],
        "url": "https://shop.example/products/7/?utm_source=mail",
        "urlref": "https://www.example.org/",
        "ua": "Mozilla/5.0 (X11) Firefox/140.0",
        "lang": "de-de,de;q=0.9",
        "cip": "192.0.2.0",
    }
    assert re.fullmatch(r"[0-9A-Za-z]{6}", hit["pv_id"])
    assert only(hits(view, WITH_TOKEN, NOW))["pv_id"] == hit["pv_id"]
    assert only(hits(event("Products", "page"), WITH_TOKEN, NOW))["pv_id"] != hit["pv_id"]


def test_an_address_does_not_stay_in_memory():
    address = ".".join(("192", "0", "2", "7"))
    visit = event("Products", "page", context=Context(ip=address))
    before = sys.getrefcount(address)

    assert only(hits(visit, WITH_TOKEN, NOW))["cip"] == "192.0.2.7"
    assert sys.getrefcount(address) == before


def test_a_url_of_any_length_stays_short_in_memory():
    long = "https://shop.example/" + "x" * 30_000
    visit = event("Products", "page", context=Context(url=long))
    before = sys.getrefcount(long)

    assert only(hits(visit, SITE, NOW))["url"] == long[:1024]
    assert sys.getrefcount(long) == before


def test_an_event():
    assert only(hits(event("signed up"), SITE, NOW)) == {**BASE, "e_c": "Events", "e_a": "signed up", "ca": "1"}


def test_an_event_that_the_caller_describes():
    tuned = {"category": "Accounts", "action": "sign-up", "label": "Pro plan"}
    hit = only(hits(event(tuned=tuned, value=0), SITE, NOW))
    assert hit == {**BASE, "e_c": "Accounts", "e_a": "sign-up", "e_n": "Pro plan", "e_v": "0", "ca": "1"}


def test_a_goal_is_a_hit_of_its_own_without_ca():
    site = Site(id=1, words=WORDS)
    assert hits(event("signed up", value=5), site, NOW) == [
        {**BASE, "e_c": "Events", "e_a": "signed up", "e_v": "5", "ca": "1"},
        {**BASE, "idgoal": "3"},
    ]
    assert hits(event("x", tuned={"goal": 9, "revenue": 0}), site, NOW)[1] == {**BASE, "idgoal": "9", "revenue": "0"}
    assert len(hits(event("signed up", "page"), site, NOW)) == 1


def test_an_order():
    order = {
        "id": 42,
        "items": [
            {"sku": "A-1", "name": "Chair", "category": ["Furniture", "Seats"], "price": 9.5, "quantity": 2},
            {"sku": "B"},
        ],
        "subtotal": 19,
        "tax": 0,
        "shipping": 4.9,
    }
    hit = only(hits(event(tuned={"order": order}, value=23.9), SITE, NOW))
    assert hit == {
        **BASE,
        "idgoal": "0",
        "ec_id": "42",
        "revenue": "23.9",
        "ec_st": "19",
        "ec_tx": "0",
        "ec_sh": "4.9",
        "ec_items": '[["A-1","Chair",["Furniture","Seats"],9.5,2],["B","","",0.0,1]]',
    }


def test_a_cart():
    hit = only(hits(event(tuned={"cart": {"items": [{"sku": "A", "price": 3}], "revenue": 3}}), SITE, NOW))
    assert hit == {**BASE, "idgoal": "0", "revenue": "3", "ec_items": '[["A","","",3.0,1]]'}


def test_an_order_on_a_page_keeps_the_page_view():
    first, second = hits(event("Thanks", "page", tuned={"order": {"id": "7", "revenue": 1}}), SITE, NOW)
    assert first["action_name"] == "Thanks"
    assert (second["ec_id"], "action_name" in second) == ("7", False)


@pytest.mark.parametrize(
    ("tuned", "expected"),
    [
        ({"outlink": "https://example.org/a"}, {"link": "https://example.org/a", "url": "https://example.org/a"}),
        ({"download": "https://e.org/a.pdf"}, {"download": "https://e.org/a.pdf", "url": "https://e.org/a.pdf"}),
        ({"search": "chairs"}, {"search": "chairs"}),
        (
            {"search": {"keyword": "chairs", "category": "Shop", "count": 0}},
            {"search": "chairs", "search_cat": "Shop", "search_count": "0"},
        ),
    ],
)
@pytest.mark.parametrize("type_", ["track", "page"])
def test_what_replaces_the_event(tuned, expected, type_):
    assert only(hits(event("x", type_, tuned=tuned), SITE, NOW)) == {**BASE, **expected}


def test_dimensions_by_property_and_by_the_caller():
    site = Site(id=1, words=WORDS)
    tuned = {"dimensions": {"plan": " team ", "7": True, "8": 2.50, "9": None, "10": ""}}
    happened = event("x", properties={"plan": "pro", "seats": 3, "other": 1}, tuned=tuned)
    dimensions = {name: value for name, value in only(hits(happened, site, NOW)).items() if "dimension" in name}
    assert dimensions == {
        "dimension2": "team", "dimension4": "3", "dimension7": "true", "dimension8": "2.5", "dimension10": "",
    }  # fmt: skip


def test_dimensions_belong_to_the_first_hit():
    first, second = hits(event("signed up", properties={"plan": "pro"}), Site(id=1, words=WORDS), NOW)
    assert (first["dimension2"], "dimension2" in second) == ("pro", False)


def test_what_a_token_is_needed_for():
    happened = event(context=PAGE)
    assert "cip" not in only(hits(happened, SITE, NOW))
    assert only(hits(happened, WITH_TOKEN, NOW))["cip"] == "192.0.2.0"
    assert "cip" not in only(hits(event(context=Context(ip="no address")), WITH_TOKEN, NOW))


@pytest.mark.parametrize(
    ("address", "sent"),
    [
        ("0.0.0.0", "0.0.0.0"), ("255.255.255.255", "255.255.255.255"), ("198.51.100.0", "198.51.100.0"),
        ("256.1.1.1", None), ("1.2.3.260", None), ("01.2.3.4", None), ("1.2.3", None), ("1.2.3.4.", None),
        ("1.2.3.4.5", None), ("1.2.3.4\n", None), ("1.2.3.\u0664", None), ("", None),
        ("2001:DB8:0::1", "2001:db8::1"),
    ],
)  # fmt: skip
def test_an_address_is_one(address, sent):
    assert only(hits(event(context=Context(ip=address)), WITH_TOKEN, NOW)).get("cip") == sent


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"), (0.0, "0"), (-0.0, "0"), (-1e-12, "0"), (3, "3"), (10, "10"), (100.0, "100"), (-2.5, "-2.5"),
        (1e-7, "0.0000001"), (1234567.25, "1234567.25"), (1e15, "1000000000000000"), (0.1 + 0.2, "0.3"),
    ],
)  # fmt: skip
def test_numbers_are_plain_decimals(value, shown):
    assert only(hits(event(value=value), SITE, NOW))["e_v"] == shown


# When


def test_a_time_in_the_future_is_now():
    later = event(timestamp=NOW + dt.timedelta(hours=3))
    assert only(hits(later, SITE, NOW))["cdt"] == str(int(NOW.timestamp()))


@pytest.mark.parametrize("hours", [0, 1, 23.9])
def test_the_last_day_needs_no_token(hours):
    happened = event(timestamp=NOW - dt.timedelta(hours=hours))
    assert only(hits(happened, SITE, NOW))["cdt"] == str(int(happened.timestamp.timestamp()))


@pytest.mark.parametrize("hours", [23.95, 24, 31, 10_000])
def test_what_is_older_needs_one_and_says_so(hours):
    happened = event(timestamp=NOW - dt.timedelta(hours=hours))
    with pytest.raises(
        PermanentError, match="hours ago, and Matomo takes events .* only with a token: set TOK"
    ) as told:
        hits(happened, SITE, NOW)
    assert str(told.value).endswith("set TOKEN_AUTH, and send it again as docs/howto/deploy-the-worker.md shows")
    assert only(hits(happened, WITH_TOKEN, NOW))["cdt"] == str(int(happened.timestamp.timestamp()))


def test_what_matomo_would_count_as_of_now_is_refused():
    with pytest.raises(PermanentError, match="20 years"):
        hits(event(timestamp=NOW - dt.timedelta(days=365 * 21)), WITH_TOKEN, NOW)


# Who


def test_the_cookie_s_visitor_comes_first():
    who = {"visitor_ids": {"piwik": "ABCDEF0123456789", "other": "f" * 16}, "anonymous_id": "a", "user_id": "7"}
    assert only(hits(event(**who), WITH_TOKEN, NOW))["_id"] == "abcdef0123456789"


def test_else_the_person_s_hash_always_the_same():
    def visitor(key=b"key", **who):
        return only(hits(event(**who), Site(id=1, key=key), NOW)).get("_id")

    ann = visitor(anonymous_id="ann")
    assert re.fullmatch(r"[0-9a-f]{16}", ann)
    assert visitor(anonymous_id="ann", user_id="7") == ann
    assert visitor(anonymous_id="ann", visitor_ids={"piwik": "no id"}) == ann
    assert (
        len({ann, visitor(anonymous_id="bob"), visitor(user_id="ann"), visitor(key=b"other", anonymous_id="ann")}) == 4
    )
    assert visitor(anonymous_id="0123456789ABCDEF") == "0123456789abcdef"
    assert visitor() is None


def test_the_user_s_id_only_where_the_project_wants_it():
    happened = event(user_id="ann@example.org")
    assert "uid" not in only(hits(happened, SITE, NOW))
    hit = only(hits(happened, Site(id=1, sends_user_id=True), NOW))
    assert hit["uid"] == "ann@example.org"
    assert len(hit["_id"]) == 16


NOBODY = [
    "AnonymousUser", "anonymous", "ANONYMOUS", "None", "null", "nil", "undefined", "NaN", "false", "0", " 0 ",
    "[object Object]", " ", "\n",
]  # fmt: skip


@pytest.mark.parametrize("word", NOBODY)
def test_what_programs_write_for_nobody_is_no_person(word):
    hit = only(hits(event(user_id=word, anonymous_id=word), Site(id=1, sends_user_id=True), NOW))
    assert hit.keys().isdisjoint({"uid", "_id"})
    hit = only(hits(event(user_id="7", anonymous_id=word), Site(id=1, sends_user_id=True), NOW))
    assert hit["_id"] == only(hits(event(user_id="7"), Site(id=1), NOW))["_id"]


@pytest.mark.parametrize("word", ["00", "nobody", "nullable", "Nan Goldin", "-"])
def test_what_only_looks_like_nobody_is_a_person(word):
    assert only(hits(event(user_id=word), Site(id=1, sends_user_id=True), NOW))["uid"] == word


def test_a_user_s_id_that_matomo_would_cut_is_left_out():
    """Two that are cut may be one. The visitor id is of all of it."""
    site = Site(id=1, sends_user_id=True)
    assert only(hits(event(user_id="u" * 200), site, NOW))["uid"] == "u" * 200
    ann, bob = (only(hits(event(user_id="u" * 200 + name), site, NOW)) for name in "ab")
    assert "uid" not in ann | bob
    assert ann["_id"] != bob["_id"]


@pytest.mark.parametrize("user_id", ["a\nb", "a\0b", "a\ud800"])
def test_a_user_s_id_that_can_t_be_sent_as_it_is_is_left_out(user_id):
    assert "uid" not in only(hits(event(user_id=user_id), Site(id=1, sends_user_id=True), NOW))


# What is refused


@pytest.mark.parametrize(
    ("tuned", "problem"),
    [
        ({"goal": 0}, r"plugins\.piwik\.goal: Expected `int` >= 1"),
        ({"goal": "3"}, r"plugins\.piwik\.goal: Expected `int"),
        ({"goal": True}, r"plugins\.piwik\.goal: Expected `int"),
        ({"revenue": 5}, r"plugins\.piwik\.revenue: there is no goal"),
        ({"category": " \n"}, r"plugins\.piwik\.category: is blank"),
        ({"category": ""}, r"plugins\.piwik\.category: Expected"),
        ({"category": "a", "search": "b"}, r"plugins\.piwik\.category: is for events, not for search"),
        ({"outlink": "https://a.org", "download": "https://a.org"}, r"plugins\.piwik\.download: an event with outlink"),
        ({"outlink": "javascript:alert(1)"}, r"plugins\.piwik\.outlink: must be an absolute URL"),
        ({"url": "/relative"}, r"plugins\.piwik\.url: must be an absolute URL"),
        ({"search": {"keyword": "a", "count": -1}}, r"plugins\.piwik\.search\.count: Expected"),
        ({"search": " "}, r"plugins\.piwik\.search: is blank"),
        ({"order": {"id": "7"}}, r"plugins\.piwik\.order\.revenue: is missing"),
        ({"order": {"id": " ", "revenue": 1}}, r"plugins\.piwik\.order\.id: is empty"),
        ({"order": {"id": "x" * 101, "revenue": 1}}, r"plugins\.piwik\.order\.id: must be one line of at most 100"),
        ({"order": {"id": "a\nb", "revenue": 1}}, r"plugins\.piwik\.order\.id: must be one line"),
        ({"order": {"revenue": 1}}, r"plugins\.piwik\.order: Object missing required field `id`"),
        ({"order": {"id": 1, "sum": 1}}, r"plugins\.piwik\.order: Object contains unknown field `sum`"),
        ({"order": {"id": 1, "items": [{"sku": "a"}, {}]}}, r"plugins\.piwik\.order\.items\[1\]: Object missing"),
        ({"cart": {"items": [{"sku": " "}], "revenue": 1}}, r"plugins\.piwik\.cart\.items\[0\]\.sku: is blank"),
        ({"cart": {"items": [{"sku": "a", "price": float("nan")}], "revenue": 1}}, r"items\[0\]\.price: "),
        ({"cart": {"items": [{"sku": "a", "category": list("abcdef")}], "revenue": 1}}, r"items\[0\]\.category: "),
        ({"dimensions": {"nope": 1}}, r"plugins\.piwik\.dimensions\.nope: is neither an id nor a name"),
        ({"dimensions": {"0": 1}}, r"plugins\.piwik\.dimensions\.0: is neither"),
        ({"dimensions": {"1": [2]}}, r"plugins\.piwik\.dimensions\[\.\.\.\]: Expected"),
    ],
)
def test_what_cannot_be_is_refused_by_its_path(tuned, problem):
    with pytest.raises(PermanentError, match=problem):
        hits(event(tuned=tuned), SITE, NOW)


@pytest.mark.parametrize("value", [1e16, -1e16, float("inf"), float("nan"), 10**400])
def test_a_number_that_no_column_holds(value):
    with pytest.raises(PermanentError, match="value: a number beyond"):
        hits(event(value=value), SITE, NOW)


def test_a_page_view_has_no_category():
    with pytest.raises(PermanentError, match=r"plugins\.piwik\.label: is for events, not for page views"):
        hits(event("x", "page", tuned={"label": "a"}), SITE, NOW)


# Limits, whatever comes

LIMITS = {
    "uid": 200, "search_cat": 200, "ec_id": 100, "pv_id": 6, "_id": 16, "action_name": 1024, "url": 1024,
    "urlref": 1024, "e_c": 1024, "e_a": 1024, "e_n": 1024, "link": 1024, "download": 1024, "ua": 1024, "lang": 1024,
}  # fmt: skip
NUMBERS = ("e_v", "revenue", "ec_st", "ec_tx", "ec_sh", "ec_dt", "idgoal", "search_count", "cdt", "idsite")

texts = st.text(max_size=1500) | st.sampled_from(["", " ", "https://e.org/" + "ä%20" * 400, "x" * 3000, "\ud800"])
numbers = st.integers() | st.floats() | st.none() | st.booleans()
items = st.fixed_dictionaries({"sku": texts}, optional={"name": texts, "category": texts, "price": numbers})
tunings = st.fixed_dictionaries(
    {},
    optional={
        "category": texts,
        "action": texts,
        "label": texts,
        "goal": st.integers(-1, 5),
        "revenue": numbers,
        "order": st.fixed_dictionaries(
            {"id": texts | st.integers()},
            optional={"items": st.lists(items, max_size=3), "revenue": numbers, "tax": numbers, "discount": numbers},
        ),
        "cart": st.fixed_dictionaries({}, optional={"items": st.lists(items, max_size=3), "revenue": numbers}),
        "search": texts | st.fixed_dictionaries({"keyword": texts}, optional={"category": texts, "count": numbers}),
        "outlink": texts,
        "download": texts,
        "dimensions": st.dictionaries(texts | st.sampled_from(["1", "22"]), texts | numbers, max_size=3),
        "url": texts,
    },
)
events = st.builds(
    Event,
    type=st.sampled_from(["track", "page"]),
    name=texts,
    message_id=st.uuids().map(str),
    timestamp=st.datetimes(timezones=st.just(dt.UTC)),
    properties=st.dictionaries(st.sampled_from(["plan", "x"]), texts | numbers | st.lists(texts), max_size=2),
    user_id=st.none() | texts,
    anonymous_id=st.none() | texts,
    value=numbers,
    context=st.builds(Context, ip=texts, user_agent=texts, language=texts, url=texts, referrer=texts),
    plugins=st.builds(lambda tuning: {"piwik": tuning}, tunings),
    visitor_ids=st.dictionaries(st.just("piwik"), texts, max_size=1),
)


@given(happened=events, has_token=st.booleans())
@example(happened=event("x", user_id="\ud800", anonymous_id="\ud800"), has_token=True)
def test_every_hit_is_within_matomo_s_limits_or_the_event_is_refused(happened, has_token):
    site = Site(id=1, words=WORDS, has_token=has_token, sends_user_id=True)
    try:
        found = hits(happened, site, NOW)
    except PermanentError:
        return
    for hit in found:
        for name, value in hit.items():
            assert isinstance(value, str)
            assert len(value) <= LIMITS.get(name, 250 if name.startswith("dimension") else 30_000)
            value.encode()
        for name in NUMBERS:
            assert re.fullmatch(r"-?\d+(\.\d+)?", hit.get(name, "0"))
        if "e_c" in hit:
            assert hit["e_c"].strip()
            assert hit["e_a"].strip()
            assert hit["ca"] == "1"
        else:
            assert "ca" not in hit
        assert re.fullmatch(r"[0-9a-f]{16}", hit.get("_id", "0" * 16))
        json.loads(hit.get("ec_items", "[]"), parse_constant=pytest.fail)
        assert has_token or "cip" not in hit
        assert int(hit["cdt"]) <= NOW.timestamp()


def test_the_noon_of_these_tests():
    assert str(int(NOON.timestamp())) == NOON_UNIX
