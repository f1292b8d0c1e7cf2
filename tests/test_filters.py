"""``filter_request``: what each answer means, how several combine, and when it is asked."""

from __future__ import annotations

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, User
from django.test import RequestFactory

from pluginhost import host, memo
from pluginhost.delivery import memory
from tests.samples import Filter, Recorder

rf = RequestFactory()
ANALYTICS = {"PLUGIN": "recorder", "PURPOSE": "analytics"}
MARKETING = {"PLUGIN": "recorder", "PURPOSE": "marketing"}


@pytest.fixture
def lanes(configure, monkeypatch):
    """The lanes of an event, after these answers of as many filters."""

    def lanes(*answers):
        by_alias = {f"filter{n}": answer for n, answer in enumerate(answers)}
        configure(
            **{alias: {"PLUGIN": "filter"} for alias in by_alias},
            a=ANALYTICS,
            m=MARKETING,
            chosen={},  # whose class says marketing
        )

        def answer(plugin, request, user):
            given = by_alias[plugin.alias]
            if isinstance(given, Exception):
                raise given
            return given

        monkeypatch.setattr(Filter, "answer", answer)
        seen = []
        monkeypatch.setattr(memory.transport, "put", lambda envelopes, using: seen.extend(envelopes) or True)
        accepted = host.track(rf.get("/"), "something")
        assert bool(accepted) is bool(seen)
        return ",".join(seen[0].lanes) if seen else None

    return lanes


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((), "a,m,chosen"),
        ((None,), "a,m,chosen"),
        ((True,), "a,m,chosen"),
        ((False,), None),
        ((frozenset({"analytics"}),), "a"),
        (({"marketing", "other"},), "m,chosen"),
        ((frozenset({"analytics", "marketing"}),), "a,m,chosen"),
        ((frozenset(),), None),
        ((True, frozenset({"analytics"}), None), "a"),
        ((frozenset({"analytics", "x"}), frozenset({"marketing", "x"})), None),
        ((frozenset({"analytics", "marketing"}), frozenset({"marketing"})), "m,chosen"),
        ((True, False), None),
        ((frozenset({"analytics"}), False), None),
        ((RuntimeError("no opinion"),), "a,m,chosen"),
        ((RuntimeError("no opinion"), frozenset({"analytics"})), "a"),
        ((False, RuntimeError("no opinion")), None),
    ],
    ids=str,
)
def test_what_answers_mean(lanes, caplog, answers, expected):
    assert lanes(*answers) == expected
    assert len(caplog.records) == sum(isinstance(answer, Exception) for answer in answers if answers[0] is not False)


@pytest.mark.parametrize("garbage", ["analytics", ["analytics"], 0, 1, object, {}], ids=repr)
def test_an_answer_of_another_kind_is_no_opinion_and_is_logged(lanes, caplog, garbage):
    assert lanes(garbage, frozenset({"analytics"})) == "a"
    assert f"plugin filter0: filter_request gave a {type(garbage).__name__}; it has no opinion" in caplog.text


def test_a_filter_that_raises_is_logged(lanes, caplog):
    lanes(RuntimeError("no opinion"))
    assert "plugin filter0: filter_request failed" in caplog.text


def test_what_a_filter_keeps_out_is_counted(configure):
    configure(filter={}, recorder={})
    Filter.answer = False
    before = host.counts.get("filtered", 0)
    assert host.track(None, "something") is None
    assert host.counts["filtered"] == before + 1


def test_a_request_is_asked_about_once(configure):
    configure(filter={}, recorder={})
    request = rf.get("/")
    for name in "abc":
        host.track(request, name)
    host.identify(request, {})
    host.page(request)
    assert Filter.asked == [(request, None)]
    host.track(rf.get("/"), "of another request")
    assert len(Filter.asked) == 2


def test_an_answer_is_remembered(configure):
    configure(filter={}, recorder={})
    request = rf.get("/")
    Filter.answer = False
    assert host.track(request, "first") is None
    Filter.answer = True
    assert host.track(request, "second") is None
    assert host.track(rf.get("/"), "of another request")


def test_a_filter_is_asked_again_when_the_user_changes(configure):
    configure(filter={}, recorder={})
    Filter.answer = staticmethod(lambda request, user: user is None or user.pk != 5)
    request = rf.get("/")
    assert host.track(request, "before the log-in")

    request.user = User(pk=5)
    assert host.track(request, "logged in") is None
    assert host.track(request, "logged in") is None
    request.user = AnonymousUser()
    assert host.track(request, "logged out")

    assert [user for _, user in Filter.asked] == [None, User(pk=5), AnonymousUser()]


@pytest.mark.django_db(transaction=True)
def test_a_filter_is_asked_again_after_a_real_log_in(configure, client):
    ada = User.objects.create_user("ada", password="secret")
    configure(filter={}, recorder={})
    client.get("/sign-in/")
    assert [user for _, user in Filter.asked] == [None, ada]


@pytest.mark.django_db(transaction=True)
def test_a_log_in_counts_for_what_the_request_tracked_before(configure, client):
    ada = User.objects.create_user("ada", password="secret")
    configure("inline", filter={}, recorder={}, m=MARKETING)
    Filter.answer = staticmethod(lambda request, user: user is None or frozenset({"marketing"}))

    client.get("/sign-in/")

    arrived = {alias: [(event.name, event.user_id) for event in events] for alias, events in Recorder.seen.items()}
    assert arrived == {"m": [("before", str(ada.pk)), ("after", str(ada.pk))]}


@pytest.mark.django_db(transaction=True)
def test_what_nobody_may_have_after_a_log_in_is_filtered(configure, client):
    User.objects.create_user("ada", password="secret")
    configure(filter={}, recorder={})
    Filter.answer = staticmethod(lambda request, user: user is None)
    before = host.counts.get("filtered", 0)

    client.get("/sign-in/")

    assert not memory.events
    assert host.counts["filtered"] == before + 2


@pytest.mark.django_db
def test_a_user_in_the_session_is_asked_about_before_an_event_is_theirs(configure, client):
    ada = User.objects.create_user("ada", is_staff=True)
    client.force_login(ada)
    configure(filter={}, recorder={})
    Filter.answer = staticmethod(lambda request, user: not (user is not None and user.is_staff))

    client.get("/who/?session=1")
    assert not memory.events

    Filter.answer = None
    client.get("/who/?session=1")
    assert [event.user_id for event in memory.events] == [str(ada.pk)]


def test_a_filter_does_not_track(configure, caplog):
    configure(filter={}, recorder={}, STRICT=False)
    Filter.answer = staticmethod(lambda request, user: host.track(request, "from within") is None)
    host.track(rf.get("/"), "one")
    assert [event.name for event in memory.events] == ["one"]
    assert len(Filter.asked) == 1
    assert "called from within a hook of 'filter'; hooks do not track" in caplog.text


def test_an_answer_of_the_event_loop_is_not_remembered(configure):
    configure(filter={}, recorder={}, STRICT=False)
    request = rf.get("/")
    answers = iter([False, True, False])
    Filter.answer = staticmethod(lambda request, user: next(answers))

    async def track():
        return [host.track(request, "in the loop"), await host.atrack(request, "in a thread")]

    first, second = async_to_sync(track)()
    assert first is None
    assert second
    assert host.track(request, "remembered")


def test_a_filter_never_makes_the_host_resolve_a_user(configure, client):
    """Without access to a database: a query would fail this test."""
    client.cookies["sessionid"] = "x" * 32
    configure(filter={}, recorder={})
    client.get("/twice/")
    [(request, user)] = Filter.asked
    assert user is None
    assert not request.session.accessed


def test_a_user_alone_is_asked_about_without_a_request(configure):
    configure(filter={}, recorder={})
    host.track(User(pk=5), "something")
    host.track(None, "nobody's")
    assert Filter.asked == [(None, User(pk=5)), (None, None)]


def test_purposes_of_aliases(configure):
    configure(a=ANALYTICS, m=MARKETING, recorder={}, chosen={})
    purposes = {alias: loaded.plugin.purpose for alias, loaded in host.registry.plugins.items()}
    assert purposes == {"a": "analytics", "m": "marketing", "recorder": "analytics", "chosen": "marketing"}
    assert Recorder.purpose == "analytics"


def test_without_filters_nobody_is_asked(configure):
    configure(recorder={})
    request = rf.get("/")
    assert host.track(request, "something")
    assert not Filter.asked
    assert memo.of(request).verdict is None


def test_a_switch_cannot_let_through_what_a_filter_keeps_out(configure):
    configure(filter={}, recorder={})
    Filter.answer = False
    assert host.track(None, "something", plugins={"recorder": True}) is None
