"""The plugin as the host runs it: options, checks, and events from a view to the receiver."""

from __future__ import annotations

import datetime as dt
import time

import pytest
from django.contrib.auth.models import User
from django.core.checks import Error
from django.test import RequestFactory

from pluginhost import Event, Person, RetryableError, host
from pluginhost.exceptions import ConfigurationError
from pluginhost.registry import load_registry
from tests.servers import free_port

NOON = dt.datetime(2025, 11, 21, 12, tzinfo=dt.UTC)
MADE = "7OeC+b4xyhEYCBZ+RxfXDHcxsRk="


@pytest.fixture
def enable(configure, receiver, api_key, monkeypatch):
    """Enable the plugin, with options beside those that it needs."""
    monkeypatch.setenv("NO_PROXY", "*")

    def enable(transport: str = "inline", **options) -> None:
        configure(transport, kissmetrics={"API_KEY": api_key, "TRACKING_URL": receiver.url, **options})

    return enable


def event(message_id="m1", **fields) -> Event:
    given = {"type": "track", "name": "Signed Up", "message_id": message_id, "timestamp": NOON, "user_id": "7"}
    return Event(**(given | fields))


def run(*events: Event):
    return host.registry.runners["kissmetrics"].run(events)


# --- from a view to the receiver ---


@pytest.mark.django_db(transaction=True)
def test_what_a_view_tracks_arrives(enable, receiver, api_key):
    enable()
    host.track(None, "Signed Up", {"plan": "pro"}, user_id=7, value=9.5, timestamp=NOON)
    host.identify(None, {"gender": "female"}, user_id=7, timestamp=NOON)
    host.alias(None, "a1", 7, timestamp=NOON)

    base = {"_k": api_key, "_t": "1763726400", "_d": "1"}
    assert [(hit.path, dict(hit.parameters)) for hit in receiver.hits] == [
        ("/e", {**base, "_p": "7", "_n": "Signed Up", "plan": "pro", "Value": "9.5"}),
        ("/s", {**base, "_p": "7", "gender": "female"}),
        ("/a", {**base, "_p": "a1", "_n": "7"}),
    ]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("cookies", "person"),
    [
        ({"km_ni": "bob%40bob.com", "km_ai": MADE}, "bob@bob.com"),
        ({"km_ai": "7OeC%2Bb4xyhEYCBZ%2BRxfXDHcxsRk%3D"}, MADE),
        ({}, None),
        ({"km_ni": "bob%40bob.com", "km_ai": MADE, "pluginhost_signed_out": "1763726400000"}, None),
    ],
)
def test_the_visitor_of_a_request(enable, receiver, cookies, person):
    enable()
    request = RequestFactory().get("/")
    request.COOKIES.update(cookies)

    host.track(request, "Signed Up")

    assert [hit.parameters[1] for hit in receiver.hits] == ([] if person is None else [("_p", person)])


@pytest.mark.django_db(transaction=True)
def test_a_user_comes_before_the_cookies(enable, receiver):
    enable()
    request = RequestFactory().get("/")
    request.COOKIES["km_ni"] = "bob%40bob.com"
    request.user = User.objects.create(username="ada")

    host.track(request, "Signed Up")

    assert receiver.last["_p"] == str(request.user.pk)


@pytest.mark.django_db(transaction=True)
def test_page_views_are_recorded_where_the_project_names_them(enable, receiver):
    enable()
    assert host.page(None, "Prices", user_id=7) is None, "no plugin takes them"
    assert receiver.hits == []

    enable(PAGE_EVENT="Page View")
    host.page(None, "Prices", user_id=7)
    assert (receiver.last["_n"], receiver.last["Title"]) == ("Page View", "Prices")


@pytest.mark.django_db(transaction=True)
def test_the_name_of_the_value_for_one_event(enable, receiver):
    enable(VALUE_PROPERTY=None)
    host.track(None, "Billed", user_id=7, value=9, plugins={"kissmetrics": {"value_as": "Billing Amount"}})

    assert receiver.last["Billing Amount"] == "9"


# --- what becomes of an event ---


def test_events_share_a_connection(enable, receiver):
    enable()

    assert run(*(event(str(n), name=f"Event {n}") for n in range(20))).delivered == 20
    assert receiver.connections == 1


def test_a_repeat_is_the_same_call_and_another_occurrence_is_not(enable, receiver):
    enable()
    run(event("m1"), event("m2"))
    run(event("m2"), event("m1"), event("m3"))

    assert [dict(hit.parameters)["_t"] for hit in receiver.hits] == [
        "1763726400",
        "1763726401",
        "1763726401",
        "1763726400",
        "1763726402",
    ]
    assert receiver.hits[0].parameters == receiver.hits[3].parameters
    assert receiver.hits[1].parameters == receiver.hits[2].parameters


def test_traits_of_the_same_second_are_kept_apart_too(enable, receiver):
    enable()
    run(
        event("m1", type="identify", name="identify", properties={"plan": "free"}),
        event("m2", type="identify", name="identify", properties={"plan": "pro"}),
    )

    assert [dict(hit.parameters)["_t"] for hit in receiver.hits] == ["1763726400", "1763726401"]


def test_events_without_a_person_are_skipped(enable, receiver):
    enable()
    nobody = event("m1", user_id=None)

    result = run(nobody, event("m2", user_id="None"), event("m3", user_id=None, anonymous_id="a1"))

    assert (result.skipped, result.delivered) == (2, 1)
    assert receiver.last["_p"] == "a1"


def test_an_alias_that_would_merge_wrongly_is_not_sent(enable, receiver):
    enable()

    result = run(
        event("m1", type="alias", previous_id="7"),
        event("m2", type="alias", previous_id=None),
        event("m3", type="alias", previous_id="null"),
        event("m4", type="alias", previous_id="a1"),
    )

    assert (result.skipped, result.delivered) == (2, 1)
    assert result.failures[2].dead
    assert "stands for nobody" in result.failures[2].reason
    assert [hit.parameters[1] for hit in receiver.hits] == [("_p", "a1")]


def test_the_rest_waits_while_the_receiver_is_busy(enable, receiver):
    enable()
    receiver.status(429, Retry_After="77")

    result = run(event("m1"), event("m2"))

    assert (result.done, result.deferred.retry_after) == (0, 77)
    assert len(receiver.hits) == 1


def test_a_refused_request_does_not_hold_up_the_next(enable, receiver):
    enable()
    receiver.status(414)

    result = run(event("m1"), event("m2"))

    assert [failure.dead for failure in result.failures.values()] == [True, True]


@pytest.mark.parametrize("status", [400, 405])
def test_what_a_wrong_address_refuses_is_kept(enable, receiver, status):
    """For a while one after the other may be the bad one; then all that is left waits."""
    enable()
    receiver.status(status)
    events = [event(str(n)) for n in range(30)]

    result = run(*events)

    assert result.delivered == 0
    assert not any(failure.dead for failure in result.failures.values())
    assert not result.deferred.dead
    assert len(receiver.hits) < len(events)

    receiver.answer = None
    assert run(*events).delivered == len(events)


def test_no_reason_tells_the_key_or_the_person(enable, api_key):
    enable(TRACKING_URL=f"http://127.0.0.1:{free_port()}")

    reason = run(event(user_id="bob@bob.com")).deferred.reason

    assert "refused the connection" in reason
    assert api_key not in reason
    assert "bob" not in reason


def test_a_closed_plugin_can_be_set_up_again(enable, receiver):
    enable()
    runner = host.registry.runners["kissmetrics"]
    runner.run([event("m1")])
    runner.close()
    assert runner.run([event("m2")]).delivered == 1
    assert receiver.connections == 2


def test_send_test(enable, receiver):
    enable()
    plugin = host.registry.plugins["kissmetrics"].plugin
    plugin.setup()
    try:
        told = plugin.send_test()
    finally:
        plugin.close()

    assert receiver.hits[0].path == "/e"
    assert (receiver.last["_p"], receiver.last["_n"]) == ("pluginhost-test", "pluginhost test")
    assert "even to a wrong API_KEY" in told
    assert "'pluginhost-test'" in told


def test_send_test_says_who_failed(enable, receiver):
    enable()
    receiver.status(404)
    plugin = host.registry.plugins["kissmetrics"].plugin
    plugin.setup()
    try:
        with pytest.raises(RetryableError, match="status 404.*TRACKING_URL") as raised:
            plugin.send_test()
    finally:
        plugin.close()

    assert receiver.url.removeprefix("http://") in str(raised.value)


def test_what_is_said_to_happen_in_the_future_happens_now(enable, receiver):
    enable()
    began = time.time()
    run(event(timestamp=dt.datetime(2999, 1, 1, tzinfo=dt.UTC)))

    assert int(began) <= int(receiver.last["_t"]) <= time.time()


def test_a_repeat_of_such_a_one_gets_the_same_second(enable, receiver, monkeypatch):
    enable()
    odd = event(timestamp=dt.datetime(2999, 1, 1, tzinfo=dt.UTC))
    run(odd)
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)
    run(odd)

    assert receiver.hits[0].parameters == receiver.hits[1].parameters


# --- what the plugin says of itself ---


def test_what_it_is(enable):
    enable()
    plugin = host.registry.plugins["kissmetrics"].plugin

    assert plugin.purpose == "marketing"
    assert plugin.personal_data
    assert plugin.dedupes
    assert plugin.announces_identity
    assert plugin.event_types == {"track", "identify", "alias"}


def test_what_options_change(enable):
    enable(IDENTIFY=False, PAGE_EVENT="Page View", PURPOSE="analytics")
    plugin = host.registry.plugins["kissmetrics"].plugin

    assert plugin.purpose == "analytics"
    assert not plugin.announces_identity
    assert plugin.event_types == {"track", "page", "identify", "alias"}
    assert type(plugin).event_types == {"track", "identify", "alias"}, "other aliases are not concerned"


# --- options ---


def problem(configure, **options) -> str:
    configure(kissmetrics=options)
    with pytest.raises(ConfigurationError) as raised:
        host.registry  # noqa: B018
    return str(raised.value)


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("", "has 0 characters"),
        ("0123456789abcdef", "has 16 characters"),
        ("0123456789abcdef0123456789abcdef012345678", "has 41 characters"),
        ("0123456789ABCDEF0123456789abcdef01234567", "has capital letters"),
        ("0123456789abcdef0123456789abcdef0123456g", "has other characters"),
        ("0123456789abcdef0123456789abcdef01234567\n", "has spaces or line ends around it"),
        (None, "API_KEY: expected `str`"),
        (b"0123456789abcdef0123456789abcdef01234567", "API_KEY: expected `str`"),
    ],
)
def test_a_wrong_key(configure, key, what):
    told = problem(configure, API_KEY=key)

    assert "kissmetrics" in told
    assert what in told
    assert not key or str(key) not in told


def test_a_missing_key(configure):
    assert "the option API_KEY is missing" in problem(configure)


@pytest.mark.parametrize("name", ["TRACKING_URL", "LOADER_URL", "SCRIPT_URL"])
@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("", "must begin with https:// or http://"),
        ("//trk.kissmetrics.io", "must begin with https:// or http://"),
        ("trk.kissmetrics.io", "must begin with https:// or http://"),
        ("javascript:alert(1)", "must begin with https:// or http://"),
        ("ftp://example.com", "must begin with https:// or http://"),
        ("https://bob:hunter2@example.com", "must not hold a user or a password"),
        ("https://example.com/?key=hunter2", "must not hold a query or a fragment"),
        ("https://example.com/#hunter2", "must not hold a query or a fragment"),
        ("https://example.com?", "must not hold a query or a fragment"),
        ('https://example.com/"onload="hunter2', "is no URL of a host and a path"),
        ("https://example.com/'hunter2", "is no URL of a host and a path"),
        ("https://example.com/</script>", "is no URL of a host and a path"),
        ("https://example.com/a b", "is no URL of a host and a path"),
        (" https://example.com", "is no URL of a host and a path"),
        ("https://", "is no URL of a host and a path"),
        ("https://example.com:99999", "is no URL"),
        ("https://example.com:0", "is no URL of a host and a path"),
        ("https://[::1", "is no URL"),
        ("https://example.com\n", "is no URL"),
    ],
)
def test_a_wrong_url(configure, api_key, name, url, what):
    told = problem(configure, API_KEY=api_key, **{name: url})

    assert f"{name} {what}" in told
    assert "hunter2" not in told
    assert api_key not in told


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://trk.kissmetrics.io/", "https://trk.kissmetrics.io"),
        ("http://localhost:8000//", "http://localhost:8000"),
        ("https://example.com/km/", "https://example.com/km"),
        ("https://[::1]:8443/x", "https://[::1]:8443/x"),
    ],
)
def test_urls_that_are_right(configure, api_key, url, kept):
    configure(kissmetrics={"API_KEY": api_key, "TRACKING_URL": url})

    assert kept == host.registry.plugins["kissmetrics"].plugin.options.TRACKING_URL


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"CONNECT_TIMEOUT": 0}, "CONNECT_TIMEOUT: "),
        ({"READ_TIMEOUT": -1}, "READ_TIMEOUT: "),
        ({"READ_TIMEOUT": "5"}, "READ_TIMEOUT: "),
        ({"READ_TIMEOUT": float("nan")}, "READ_TIMEOUT: "),
        ({"READ_TIMEOUT": float("inf")}, "READ_TIMEOUT: "),
        ({"PAGE_EVENT": "  "}, "PAGE_EVENT must have 1 to 255 characters"),
        ({"PAGE_EVENT": "x" * 256}, "PAGE_EVENT must have 1 to 255 characters"),
        ({"VALUE_PROPERTY": ""}, "VALUE_PROPERTY is empty"),
        ({"VALUE_PROPERTY": "_k"}, "VALUE_PROPERTY must be"),
        ({"VALUE_PROPERTY": "x" * 256}, "VALUE_PROPERTY must be"),
        ({"COOKIE_DOMAIN": "https://example.com"}, "COOKIE_DOMAIN must be a domain"),
        ({"COOKIE_DOMAIN": ".example.com;"}, "COOKIE_DOMAIN must be a domain"),
        ({"COOKIE_DOMAIN": ""}, "COOKIE_DOMAIN must be a domain"),
        ({"SKIP": ["page_views"]}, "SKIP: "),
        ({"SKIP": "page_view"}, "SKIP: "),
        ({"LOADER": "yes"}, "LOADER: "),
        ({"KEY": "x"}, "there is no option 'KEY'"),
    ],
)
def test_other_wrong_options(configure, api_key, options, what):
    assert what in problem(configure, API_KEY=api_key, **options)


@pytest.mark.parametrize(
    ("options", "problems"),
    [
        ({}, []),
        ({"CONNECT_TIMEOUT": 3, "READ_TIMEOUT": 4.5}, []),
        ({"READ_TIMEOUT": 28}, ["are 30 s together, not below"]),
        ({"TIMEOUT": 7}, ["are 7 s together, not below the lane's TIMEOUT of 7 s"]),
    ],
)
def test_the_waits_have_to_end_before_the_lane_loses_patience(configure, api_key, options, problems):
    configure(kissmetrics={"API_KEY": api_key, **options})
    messages = load_registry().plugins["kissmetrics"].plugin.check()

    assert [(message.id, isinstance(message, Error)) for message in messages] == [
        ("pluginhost_kissmetrics.E001", True) for _ in problems
    ]
    assert all(what in message.msg for what, message in zip(problems, messages, strict=True))


# --- a person who is forgotten ---


def test_to_forget_somebody_is_done_by_hand(enable, receiver):
    enable()
    with pytest.raises(NotImplementedError, match="press Delete Person") as raised:
        host.registry.runners["kissmetrics"].forget(Person(user_ids=("7", "None", "a:b"), anonymous_ids=("v",)))
    assert "by each of '7', 'a b', 'v'; on" in str(raised.value)
    assert receiver.hits == []
