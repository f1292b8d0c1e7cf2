"""The plugin in the host: options, checks, cookies, deliveries and what becomes of those that fail."""

from __future__ import annotations

import datetime as dt
import logging

import pytest
from django.core.management import CommandError, call_command
from django.test import RequestFactory

from pluginhost import CookieIds, PartialFailure, PermanentError, RetryableError, UncertainError, host
from pluginhost.exceptions import ConfigurationError
from pluginhost.models import Delivery
from pluginhost.workers.worker import drain
from pluginhost_piwik.plugin import Piwik, addresses
from plugins.piwik.tests.helpers import GIF, TOKEN, answer, deliver, event, fresh, plugin
from tests.servers import free_port

rf = RequestFactory()
IMAGE = (200, {"Content-Type": "image/gif"}, GIF)
ORDER = {"order": {"id": 7, "revenue": 5}}


def hang_up(handler):
    handler.close_connection = True


# Options


@pytest.mark.parametrize(
    ("url", "tracker", "script"),
    [
        ("https://stats.example", "https://stats.example/matomo.php", "https://stats.example/matomo.js"),
        ("https://stats.example/", "https://stats.example/matomo.php", "https://stats.example/matomo.js"),
        ("http://e.org:8080/m//", "http://e.org:8080/m/matomo.php", "http://e.org:8080/m/matomo.js"),
        ("https://e.org/m/proxy-matomo.php", "https://e.org/m/proxy-matomo.php", "https://e.org/m/matomo.js"),
        ("https://matomo.php", "https://matomo.php/matomo.php", "https://matomo.php/matomo.js"),
        ("http://[::1]:8000/", "http://[::1]:8000/matomo.php", "http://[::1]:8000/matomo.js"),
    ],
)
def test_addresses_from_a_base_or_from_the_tracker(url, tracker, script):
    made = plugin(url)
    assert (made.tracker_url, made.script_url) == (tracker, script)


def test_old_file_names():
    assert addresses("https://e.org/", "piwik.php", "piwik.js") == ("https://e.org/piwik.php", "https://e.org/piwik.js")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"URL": "javascript:alert(1)"}, "URL must be the address of a Matomo"),
        ({"URL": "//stats.example/"}, "URL must be the address of a Matomo"),
        ({"URL": "https://"}, "URL must be the address of a Matomo"),
        ({"URL": "https://ann:hush@stats.example/"}, "URL must be the address of a Matomo"),
        ({"URL": "https://stats.example/?idsite=1"}, "URL must be the address of a Matomo"),
        ({"URL": "https://stats.example/'"}, "URL must be the address of a Matomo"),
        ({"URL": "https://stats.example/\n"}, "URL must be the address of a Matomo"),
        ({"URL": "https://stats.example:99999/"}, "URL must be the address of a Matomo"),
        ({"SITE_ID": 0}, "SITE_ID: Expected `int` >= 1"),
        ({"SITE_ID": "1"}, "SITE_ID: Expected `int`"),
        ({"SITE_ID": True}, "SITE_ID: Expected `int`"),
        ({"TOKEN_AUTH": "hush"}, "TOKEN_AUTH must be 32 hexadecimal digits"),
        ({"TOKEN_AUTH": f"{TOKEN}\n"}, "TOKEN_AUTH must be 32 hexadecimal digits"),
        ({"PHP_FILE": "../a?b"}, "PHP_FILE"),
        ({"JS_FILE": "a b.js"}, "JS_FILE"),
        ({"CONNECT_TIMEOUT": 0}, "CONNECT_TIMEOUT"),
        ({"GOALS": {"paid": 0}}, "GOALS"),
        ({"DIMENSIONS": {"plan": "1"}}, "DIMENSIONS"),
        ({"CATEGORY": " "}, "CATEGORY"),
        ({"CONSENT": "cookie"}, "CONSENT: must be one of 'off', 'tracking', 'cookies'. Did you mean 'cookies'?"),
        ({"COOKIE_DOMAIN": "a;b"}, "COOKIE_DOMAIN"),
        ({"HEARTBEAT": 0}, "HEARTBEAT"),
        ({"TOKEN": TOKEN}, "Did you mean 'TOKEN_AUTH'?"),
    ],
)
def test_wrong_options_are_refused_at_the_start(configure, options, problem):
    configure("memory", piwik={"URL": "https://stats.example/", "SITE_ID": 1, **options})
    with pytest.raises(ConfigurationError) as caught:
        host.registry  # noqa: B018
    assert problem in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("token", [None, ""])
def test_no_token_is_no_error(token):
    assert [message.id for message in plugin(TOKEN_AUTH=token).check()] == ["pluginhost_piwik.W001"]


@pytest.mark.parametrize(
    ("options", "lane", "expected"),
    [
        ({"TOKEN_AUTH": TOKEN}, {}, []),
        ({"TOKEN_AUTH": TOKEN, "URL": "http://stats.example/"}, {}, ["pluginhost_piwik.W002"]),
        ({"TOKEN_AUTH": TOKEN}, {"CONCURRENCY": 2}, ["pluginhost_piwik.W003"]),
        ({"TOKEN_AUTH": TOKEN}, {"TIMEOUT": 32.0}, ["pluginhost_piwik.E001"]),
        ({"TOKEN_AUTH": TOKEN, "READ_TIMEOUT": 38.0}, {}, ["pluginhost_piwik.E001"]),
        ({"TOKEN_AUTH": TOKEN, "READ_TIMEOUT": 60.0}, {"TIMEOUT": 62.0}, ["pluginhost_piwik.E001"]),
        ({"TOKEN_AUTH": TOKEN, "READ_TIMEOUT": 60.0}, {"TIMEOUT": 70.0}, []),
    ],
)
def test_checks(options, lane, expected):
    messages = plugin(lane=lane, **{"url": options.pop("URL", "https://stats.example/"), **options}).check()
    assert [message.id for message in messages] == expected
    assert all(message.msg.startswith("PLUGINHOST['PLUGINS']['piwik']: ") and message.hint for message in messages)
    assert TOKEN not in str(messages)


# Cookies


def request(cookies: str = "", **headers: str):
    return rf.get("/", headers={"cookie": cookies, **headers})


@pytest.mark.parametrize(
    ("cookies", "expected"),
    [
        ("_pk_id.1.1fff=0123456789abcdef.1795262400.", "0123456789abcdef"),
        ("_pk_id.1.1fff=0123456789ABCDEF.1795262400.3.1.1.", "0123456789abcdef"),
        ("_pk_id.1.1fff=0123456789abcdef", "0123456789abcdef"),
        ("_pk_id.11.1fff=0123456789abcdef.1.", None),
        ("_pk_id.2.1fff=0123456789abcdef.1.", None),
        ("_pk_id.1.1fff=0123456789abcde.1.", None),
        ("_pk_id.1.1fff=0123456789abcdefa.1.", None),
        ("_pk_id.1.1fff=<script>.1.", None),
        ("_pk_id.1.aaaa=zzz.1.; _pk_id.1.bbbb=0123456789abcdef.1.", "0123456789abcdef"),
        ("", None),
    ],
)
def test_the_visitor_s_cookie(cookies, expected):
    assert plugin().cookie_ids(request(cookies)) == CookieIds(expected, expected)


def test_the_cookie_of_one_who_opted_out():
    """Is no anonymous id either; ``wants`` knows the mark."""
    found = plugin().cookie_ids(request("mtm_consent_removed=1; _pk_id.1.1fff=0123456789abcdef.1."))
    assert found == CookieIds(anonymous=None, visitor="refused")


@pytest.mark.parametrize(
    ("options", "hash4"),
    [
        ({}, "863e"),  # sha1("testserver/")
        ({"COOKIE_DOMAIN": "*.example.org"}, "898a"),  # sha1(".example.org/")
    ],
)
def test_of_several_cookies_the_one_that_the_script_uses_here(options, hash4):
    cookies = f"_pk_id.1.0000=aaaaaaaaaaaaaaaa.1.; _pk_id.1.{hash4}=bbbbbbbbbbbbbbbb.1.; _pk_id.1.ffff={'c' * 16}.1."
    assert plugin(**options).cookie_ids(request(cookies)).visitor == "bbbbbbbbbbbbbbbb"


def test_a_host_that_django_does_not_believe_leaves_any_cookie(settings):
    settings.ALLOWED_HOSTS = ["elsewhere"]
    cookies = "_pk_id.1.bbbb=bbbbbbbbbbbbbbbb.1.; _pk_id.1.cccc=cccccccccccccccc.1."
    assert plugin().cookie_ids(request(cookies)).visitor == "bbbbbbbbbbbbbbbb"


def test_no_cookies_are_read_where_none_are_set():
    assert plugin(DISABLE_COOKIES=True).cookie_ids(request("_pk_id.1.1fff=0123456789abcdef.1.")) is None


def test_the_cookie_reaches_the_hit(configure, matomo):
    configure("inline", piwik={"URL": matomo.url, "SITE_ID": 1})
    host.track(request("_pk_id.1.1fff=0123456789abcdef.1."), "seen")
    assert matomo.hits[0]["_id"] == "0123456789abcdef"


@pytest.mark.parametrize(
    ("options", "given", "tracked"),
    [
        ({}, {"cookies": "mtm_consent_removed=1"}, False),
        ({"DO_NOT_TRACK": True}, {"DNT": "1"}, False),
        ({"DO_NOT_TRACK": True}, {"X-Do-Not-Track": "1"}, False),
        ({"DO_NOT_TRACK": True}, {"DNT": "0"}, True),
        ({}, {"DNT": "1"}, True),
    ],
)
def test_who_opted_out_is_not_tracked_from_here_either(configure, matomo, options, given, tracked):
    configure("inline", piwik={"URL": matomo.url, "SITE_ID": 1, **options})
    host.track(request(**given), "seen")
    assert len(matomo.requests) == tracked


# Deliveries


def test_many_events_are_one_request_in_order_of_time(matomo):
    now = dt.datetime.now(dt.UTC)
    times = [now - dt.timedelta(seconds=seconds) for seconds in (1, 3, 2)]
    deliver(plugin(matomo.url), *[event(str(index), timestamp=time) for index, time in enumerate(times)])
    assert [hit["e_a"] for hit in matomo.hits] == ["1", "2", "0"]
    assert len(matomo.requests) == 1
    assert matomo.requests[0]["path"] == "/matomo.php?queuedtracking=0"


def test_a_queue_of_matomo_s_may_be_used(matomo, caplog):
    matomo.answers += [IMAGE, IMAGE]
    made = plugin(matomo.url, QUEUED_TRACKING=True)
    deliver(made, fresh())
    deliver(made, fresh())
    assert matomo.requests[0]["path"] == "/matomo.php"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "without saying what becomes of them" in caplog.text


def test_options_reach_the_hits(matomo):
    options = {"TOKEN_AUTH": TOKEN, "GOALS": {"paid": 4}, "DIMENSIONS": {"plan": 2}, "CATEGORY": "Shop"}
    deliver(plugin(matomo.url, USER_ID=True, **options), fresh("paid", user_id="7", properties={"plan": "pro"}))
    first, second = matomo.hits
    assert (first["e_c"], first["dimension2"], first["uid"], second["idgoal"]) == ("Shop", "pro", "7", "4")


def test_a_derived_visitor_id_needs_the_secret_of_the_project(matomo, settings):
    for secret in ("one", "one", "two"):
        settings.SECRET_KEY = secret
        deliver(plugin(matomo.url), fresh(user_id="7"))
    first, again, other = (hit["_id"] for hit in matomo.hits)
    assert first == again != other


def test_an_event_that_matomo_would_refuse_does_not_keep_the_others(matomo):
    good, bad = fresh("good"), fresh("bad", tuned={"goal": 0})
    with pytest.raises(PartialFailure) as caught:
        deliver(plugin(matomo.url), bad, good)
    assert {key: type(error) for key, error in caught.value.errors.items()} == {bad.message_id: PermanentError}
    assert [hit["e_a"] for hit in matomo.hits] == ["good"]


def test_nothing_but_bad_events_makes_no_request(matomo):
    with pytest.raises(PartialFailure):
        deliver(plugin(matomo.url), fresh(tuned={"goal": 0}))
    assert matomo.requests == []


def test_refused_hits_are_told_apart_across_batches(matomo):
    made = plugin(matomo.url, TOKEN_AUTH=TOKEN, GOALS={"paid": 3, "seen": 5})
    deliver(made, fresh("seen"))
    matomo.answers.append((200, {}, answer(4, 1)))
    paid = fresh("paid")
    with pytest.raises(PartialFailure) as caught:
        deliver(made, fresh("x"), paid, fresh("seen"))
    assert list(caught.value.errors) == [paid.message_id]


# What nobody knows


def test_a_lost_answer_is_uncertain_for_the_whole_batch_while_it_is_resent(matomo):
    matomo.answers.append(hang_up)
    with pytest.raises(UncertainError, match="did not answer"):
        deliver(plugin(matomo.url), fresh(), fresh(tuned=ORDER))


def test_orders_alone_are_sent_again_whatever_the_option_says(matomo):
    matomo.answers.append(hang_up)
    with pytest.raises(RetryableError, match="counts an order once"):
        deliver(plugin(matomo.url, lane={"ON_UNCERTAIN": "dead"}), fresh(tuned=ORDER))


def test_a_mixed_batch_says_it_for_each_event(matomo):
    matomo.answers.append(hang_up)
    plain, order, with_goal, bad = (
        fresh(),
        fresh(tuned=ORDER),
        fresh(tuned={**ORDER, "goal": 3}),
        fresh(tuned={"goal": 0}),
    )
    with pytest.raises(PartialFailure) as caught:
        deliver(plugin(matomo.url, lane={"ON_UNCERTAIN": "dead"}), plain, order, with_goal, bad)
    assert {key: type(error) for key, error in caught.value.errors.items()} == {
        plain.message_id: UncertainError,
        order.message_id: RetryableError,
        with_goal.message_id: UncertainError,
        bad.message_id: PermanentError,
    }


@pytest.mark.parametrize("lane", [{}, {"ON_UNCERTAIN": "dead"}])
def test_hits_that_matomo_passed_over_are_not_sent_again_to_find_out(matomo, lane):
    matomo.answers.append((200, {}, answer(1)))
    with pytest.raises(PartialFailure) as caught:
        deliver(plugin(matomo.url, lane=lane), fresh(), fresh())
    assert [type(error) for error in caught.value.errors.values()] == [PermanentError, PermanentError]


# In a lane


@pytest.mark.django_db(databases="__all__", transaction=True)
def test_through_the_outbox(database, configure, matomo):
    configure("outbox", piwik={"URL": matomo.url, "SITE_ID": 1, "TOKEN_AUTH": TOKEN, "ON_UNCERTAIN": "dead"})
    with host.batch():
        host.track(None, "kept", user_id=1)
        host.track(None, "bad", plugins={"piwik": {"goal": 0}})
    drain(host.registry.runners, database)
    assert [hit["e_a"] for hit in matomo.hits] == ["kept"]

    matomo.answers.append(hang_up)
    host.track(None, "of unknown fate")
    drain(host.registry.runners, database)

    letters = Delivery.objects.order_by("event_name")
    assert [(letter.event_name, letter.state) for letter in letters] == [("bad", "dead"), ("of unknown fate", "dead")]
    assert letters[0].reason == "PermanentError: plugins.piwik.goal: Expected `int` >= 1"
    assert letters[1].reason.startswith("UncertainError: 127.0.0.1:")
    assert TOKEN not in "".join(letter.reason for letter in letters)


@pytest.mark.django_db(databases="__all__", transaction=True)
@pytest.mark.parametrize(
    ("dimensions", "sent"), [({}, {"dimension9": "3"}), ({"plan": 2}, {"dimension2": "pro", "dimension9": "3"})]
)
def test_properties_through_the_outbox(database, configure, matomo, dimensions, sent):
    configure("outbox", piwik={"URL": matomo.url, "SITE_ID": 1, "DIMENSIONS": dimensions})
    host.track(None, "paid", {"plan": "pro"}, plugins={"piwik": {"dimensions": {"9": 3}}})
    drain(host.registry.runners, database)
    [hit] = matomo.hits
    assert {name: value for name, value in hit.items() if name.startswith("dimension")} == sent


@pytest.mark.django_db(databases="__all__", transaction=True)
def test_a_server_that_is_away_gets_everything_later(database, configure, matomo):
    configure("outbox", piwik={"URL": f"http://127.0.0.1:{free_port()}/", "SITE_ID": 1})
    host.track(None, "patient")
    drain(host.registry.runners, database)
    waiting = Delivery.objects.get()
    assert (waiting.state, waiting.reason.partition(": ")[0]) == ("waiting", "RetryableError")

    configure("outbox", piwik={"URL": matomo.url, "SITE_ID": 1})
    Delivery.objects.update(due_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    drain(host.registry.runners, database)
    assert [hit["e_a"] for hit in matomo.hits] == ["patient"]


@pytest.mark.django_db(databases="__all__", transaction=True)
def test_an_event_that_undoes_the_whole_request_is_found(database, configure, matomo):
    configure("outbox", piwik={"URL": matomo.url, "SITE_ID": 1})
    matomo.poison = "poison"
    with host.batch():
        for name in ("first", "poison", "last"):
            host.track(None, name)

    for _ in range(3):
        drain(host.registry.runners, database)
        Delivery.objects.update(due_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))

    [waiting] = Delivery.objects.all()
    assert (waiting.event_name, waiting.state) == ("poison", "waiting")
    assert waiting.reason.endswith("answered 500, and undid the whole request")
    recorded = [request for request in matomo.requests if "poison" not in str(request["json"])]
    assert sum(len(request["json"]["requests"]) for request in recorded) == 2


def run(database, times: int) -> None:
    """So many attempts of everything that waits."""
    for _ in range(times):
        Delivery.objects.filter(state="waiting").update(due_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        drain(host.registry.runners, database)


@pytest.mark.django_db(databases="__all__", transaction=True)
def test_a_server_that_is_too_slow_for_a_batch_gets_smaller_ones(database, configure, matomo):
    configure("outbox", piwik={"URL": matomo.url, "SITE_ID": 1})
    matomo.most = 10
    names = {f"e{index}" for index in range(40)}
    with host.batch():
        for name in sorted(names):
            host.track(None, name)
    run(database, 6)
    assert not Delivery.objects.exists()
    assert matomo.recorded.keys() == names
    assert max(matomo.recorded.values()) <= 3


@pytest.mark.django_db(databases="__all__", transaction=True)
def test_a_server_that_records_and_never_answers_is_sent_nothing_a_fourth_time(database, configure, matomo):
    configure("outbox", piwik={"URL": matomo.url, "SITE_ID": 1})
    matomo.most = 0
    with host.batch():
        for name in ("a", "b", "c"):
            host.track(None, name)
        host.track(None, "order", plugins={"piwik": ORDER})
    run(database, 15)
    assert matomo.recorded == {"a": 3, "b": 3, "c": 3}
    assert [(letter.event_name, letter.state) for letter in Delivery.objects.order_by("event_name")] == [
        ("a", "dead"),
        ("b", "dead"),
        ("c", "dead"),
        ("order", "waiting"),
    ]
    assert "sent 3 times without an answer" in Delivery.objects.get(event_name="a").reason


@pytest.mark.django_db(databases="__all__", transaction=True)
@pytest.mark.parametrize("status", [500, 502, 504])
def test_while_nothing_answers_events_wait_and_are_not_sent(database, configure, matomo, status):
    configure("outbox", piwik={"URL": matomo.url, "SITE_ID": 1})
    matomo.answers += [(status, {}, b"<h1>Bad gateway</h1>")] * 10
    with host.batch():
        for name in ("a", "b"):
            host.track(None, name)
    run(database, 10)
    assert [hit["e_a"] for hit in matomo.hits] == ["a", "b"]
    assert "of 2 that wait, 2 were sent already" in Delivery.objects.first().reason

    run(database, 1)
    assert matomo.recorded == {"a": 1, "b": 1}
    assert not Delivery.objects.exists()


@pytest.mark.django_db(databases="__all__", transaction=True)
def test_a_failure_of_unknown_effect_counts_once_at_most_if_the_project_says_so(database, configure, matomo):
    configure("outbox", piwik={"URL": matomo.url, "SITE_ID": 1, "ON_UNCERTAIN": "dead"})
    matomo.answers.append((500, {}, b"<h1>FastCGI timeout</h1>"))
    with host.batch():
        for name in ("a", "b"):
            host.track(None, name)
    run(database, 3)
    assert [hit["e_a"] for hit in matomo.hits] == ["a", "b"]
    assert [letter.state for letter in Delivery.objects.all()] == ["dead", "dead"]


@pytest.mark.django_db(databases="__all__", transaction=True)
@pytest.mark.parametrize("status", [400, 405])
def test_a_request_that_is_refused_altogether_kills_no_backlog(database, configure, matomo, status):
    configure("outbox", piwik={"URL": matomo.url, "SITE_ID": 1})
    matomo.answers += [(status, {}, b"This resource is part of Matomo.")] * 40
    with host.batch():
        for index in range(20):
            host.track(None, f"e{index}")
    run(database, 5)
    assert not Delivery.objects.filter(state="dead").exists()

    matomo.answers.clear()
    run(database, 1)
    assert sum(matomo.recorded.values()) == len(matomo.recorded) == 20


# Trying it out


def test_send_test_says_what_the_answer_means(configure, matomo, capsys):
    configure("memory", piwik={"URL": matomo.url, "SITE_ID": 1, "TOKEN_AUTH": TOKEN})
    call_command("pluginhost", "send-test", "piwik")
    said = capsys.readouterr().out
    assert "Matomo took the event 'pluginhost test' in the category 'Events' for site 1." in said
    assert "silently leaves out" in said
    assert [hit["e_a"] for hit in matomo.hits] == ["pluginhost test"]


def test_send_test_with_a_queue(configure, matomo, capsys):
    matomo.answers.append(IMAGE)
    configure("memory", piwik={"URL": matomo.url, "SITE_ID": 1})
    call_command("pluginhost", "send-test", "piwik")
    assert "without saying what becomes of it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((400, {}, b""), "the plugin BulkTracking may be off, SITE_ID may not exist"),
        ((200, {}, answer(0, 1)), "does SITE_ID exist there, and may TOKEN_AUTH write"),
        ((200, {}, answer(0)), "under maintenance"),
        ((301, {"Location": "https://stats.example/"}, b""), "a redirect to https://stats.example"),
    ],
)
def test_send_test_explains_what_went_wrong(configure, matomo, given, said):
    matomo.answers.append(given)
    configure("memory", piwik={"URL": matomo.url, "SITE_ID": 1, "TOKEN_AUTH": TOKEN})
    with pytest.raises(CommandError, match=said) as caught:
        call_command("pluginhost", "send-test", "piwik")
    assert TOKEN not in str(caught.value)


class Careful(Piwik):
    """Looks at what the plugin itself does not."""

    def wants(self, event):
        return bool(event.properties.get("public")) and super().wants(event)


def test_a_subclass_is_given_the_properties():
    options = {"URL": "https://stats.example.com/", "SITE_ID": 1}
    assert Careful("piwik", Piwik.Options(**options)).unread == frozenset()
    assert Piwik("piwik", Piwik.Options(**options)).unread == {"properties"}
    with_dimensions = Piwik.Options(**options, DIMENSIONS={"plan": 1})
    assert Piwik("piwik", with_dimensions).unread == frozenset()
