"""The setting PLUGINHOST: its keys, its types, and what it is under a test runner."""

from __future__ import annotations

import sys

import pytest
from django.core import mail
from django.core.exceptions import MiddlewareNotUsed
from django.test import RequestFactory, override_settings

from pluginhost import ConfigurationError, host
from pluginhost.conf import ALIAS, get_settings
from pluginhost.delivery import memory
from pluginhost.middleware import TrackerMiddleware


def error_of(settings, value):
    settings.PLUGINHOST = value
    with pytest.raises(ConfigurationError) as raised:
        get_settings()
    assert raised.value.id == "pluginhost.E001"
    return str(raised.value)


def test_without_a_setting_nothing_is_enabled(settings):
    del settings.PLUGINHOST
    assert get_settings().PLUGINS == {}
    assert host.track(None, "something") is None
    assert host.render(RequestFactory().get("/")) == ""


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "PLUGINHOST is of type NoneType. It must be a dict."),
        (["bots"], "PLUGINHOST is of type list. It must be a dict."),
        ({"PLUGIN": {}}, "PLUGINHOST: there is no key 'PLUGIN'. Did you mean 'PLUGINS'? Its keys are: PLUGINS, "),
        ({"strict": True}, "there is no key 'strict'. Did you mean 'STRICT'?"),
        ({3: True}, "there is no key 3."),
        ({"ENABLED": "no"}, "ENABLED: Expected `bool`, got `str`."),
        ({"STRICT": 1}, "STRICT: Expected `bool`, got `int`."),
        (
            {"TRANSPORT": "outbx"},
            "TRANSPORT: must be one of 'celery', 'inline', 'memory', 'outbox'. Did you mean 'outbox'?",
        ),
        ({"BROKER_BUDGET": 0}, "BROKER_BUDGET is 0.0; it must be above 0, and 60 at most."),
        ({"BROKER_BUDGET": float("nan")}, "BROKER_BUDGET is nan; it must be above 0, and 60 at most."),
        ({"BROKER_BUDGET": float("inf")}, "BROKER_BUDGET is inf; it must be above 0, and 60 at most."),
        ({"DEAD_LETTER_DAYS": 0}, "DEAD_LETTER_DAYS is 0; it must be above 0."),
        ({"ACCOUNT_DAYS": -1}, "ACCOUNT_DAYS is -1; it must be above 0."),
        ({"INGEST_QUEUE": ""}, "INGEST_QUEUE is empty."),
        ({"TRANSPORT": None}, "TRANSPORT: must be one of 'celery', 'inline', 'memory', 'outbox'."),
        ({"WORKER": "thred"}, "WORKER: must be one of 'process', 'celery', 'thread'. Did you mean 'thread'?"),
        ({"IDENTITY": True}, "IDENTITY: must be one of 'known', 'always'."),
        ({"PAGE_VIEWS": "servr"}, "Did you mean 'server'?"),
        ({"IP": "shrt"}, "IP: must be one of 'short', 'full', 'none'. Did you mean 'short'?"),
        ({"TRUSTED_PROXIES": -1}, "TRUSTED_PROXIES is -1; it must not be negative."),
        ({"TRUSTED_PROXIES": True}, "TRUSTED_PROXIES: Expected `int`, got `bool`."),
        ({"ANONYMOUS_COOKIE": ""}, "ANONYMOUS_COOKIE is '', which is no name for a cookie."),
        ({"ANONYMOUS_COOKIE": "a b"}, "ANONYMOUS_COOKIE is 'a b', which is no name for a cookie."),
        ({"ANONYMOUS_COOKIE_AGE": 0}, "ANONYMOUS_COOKIE_AGE is 0; it must be above 0."),
        ({"EXCLUDE_PATHS": "/admin/"}, "EXCLUDE_PATHS: Expected `array`, got `str`."),
        ({"EXCLUDE_PATHS": [""]}, "EXCLUDE_PATHS: '' must begin with '/'."),
        ({"QUERY_PARAMETERS": "q"}, "QUERY_PARAMETERS: Expected `array`, got `str`."),
        ({"MASKED_NAMES": [1]}, "MASKED_NAMES: Expected `str`, got `int`"),
        ({"PLUGINS": ["bots"]}, "PLUGINS: Expected `object`, got `array`."),
        ({"PLUGINS": {"bots": None}}, "PLUGINS['bots'] is of type NoneType; it must be a dict of options."),
        ({"PLUGINS": {"Bots": {}}}, "PLUGINS: 'Bots' is no name for an alias"),
        ({"PLUGINS": {"a,b": {}}}, "PLUGINS: 'a,b' is no name for an alias"),
        ({"PLUGINS": {"a" * 64: {}}}, "is no name for an alias"),
        ({"TEST": []}, "TEST: Expected `object`, got `array`."),
        ({"TEST": {"TRANSPRT": "inline"}}, "PLUGINHOST['TEST']: there is no key 'TRANSPRT'. Did you mean 'TRANSPORT'?"),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_that_is_wrong(settings, value, problem):
    assert problem in error_of(settings, value)


def test_several_problems_are_told_at_once(settings):
    message = error_of(settings, {"ENABLD": 1, "STRICT": 1, "PLUGINS": {"a": 1}})
    assert "'ENABLD'" in message
    assert "STRICT: Expected" in message
    assert "PLUGINS['a']" in message
    assert "PLUGINS: " not in message  # not told twice


def test_a_wrong_setting_is_met_where_it_matters(settings):
    settings.PLUGINHOST = {"TRANSPORT": "pigeon"}
    for act in (lambda: host.track(None, "x"), lambda: TrackerMiddleware(lambda request: None)):
        with pytest.raises(ConfigurationError, match="TRANSPORT"):
            act()


@pytest.mark.parametrize("alias", ["a", "a" * 63, "piwik_intranet", "piwik-2"])
def test_names_for_aliases(settings, alias):
    settings.PLUGINHOST = {"PLUGINS": {alias: {}}}
    assert list(get_settings().PLUGINS) == [alias]
    assert ALIAS.fullmatch(alias)


def test_under_a_test_runner_nothing_leaves_by_accident(settings):
    settings.PLUGINHOST = {"PLUGINS": {"recorder": {}}, "TRANSPORT": "outbox"}

    assert get_settings().TRANSPORT == "memory"
    assert host.track(None, "stays here")  # and touches no database, which this test may not
    assert [event.name for event in memory.events] == ["stays here"]


def test_test_settings_that_do_not_speak_of_the_transport_leave_it_alone(settings):
    settings.PLUGINHOST = {"TRANSPORT": "outbox", "TEST": {"STRICT": True}}
    assert get_settings().TRANSPORT == "memory"
    assert get_settings().STRICT is True


def test_test_settings_may_choose_the_transport(settings):
    settings.PLUGINHOST = {"TRANSPORT": "outbox", "TEST": {"TRANSPORT": "inline"}}
    assert get_settings().TRANSPORT == "inline"


def test_outside_of_a_test_runner_the_setting_holds(settings, monkeypatch):
    settings.PLUGINHOST = {"TRANSPORT": "inline", "TEST": {"STRICT": True}}
    assert get_settings().STRICT is True

    monkeypatch.delattr(mail, "outbox")
    assert get_settings().TRANSPORT == "inline"
    assert get_settings().STRICT is False


def test_override_settings_takes_effect_and_ends(configure):
    configure(recorder={}, ENABLED=True)
    with override_settings(PLUGINHOST={"PLUGINS": {"folder": {}}}):
        assert list(host.registry.plugins) == ["folder"]
    assert list(host.registry.plugins) == ["recorder"]


def test_another_setting_does_not_reset_anything(configure):
    configure(recorder={})
    before = get_settings(), host.registry
    with override_settings(DEBUG=True):
        assert (get_settings(), host.registry) == before


def test_turned_off_nothing_is_imported_or_tracked(configure):
    sys.modules.pop("tests.apart", None)
    configure(apart={}, recorder={}, snippet={}, recoder={}, ENABLED=False)

    assert host.track(None, "") is None
    assert host.page(None) is None
    assert host.identify(None, {"age": float("nan")}) is None
    assert host.alias(None, "before", "after") is None
    assert host.render(RequestFactory().get("/")) == ""
    assert host.registry.plugins == {}
    assert "tests.apart" not in sys.modules
    assert not memory.events
    with host.batch():
        assert host.track(None, "something") is None


def test_turned_off_the_middleware_is_not_used(configure):
    configure(recorder={}, ENABLED=False)
    with pytest.raises(MiddlewareNotUsed):
        TrackerMiddleware(lambda request: None)


def test_a_site_that_is_turned_off_answers(configure, client):
    configure(recorder={}, ENABLED=False, PAGE_VIEWS="server", ANONYMOUS_COOKIE="visitor")
    response = client.get("/")
    assert response.content == b"home"
    assert not response.cookies
    assert not memory.events


def test_names_in_the_setting_that_are_enough(settings):
    settings.PLUGINHOST = {"EXCLUDE_PATHS": ["/admin/"], "QUERY_PARAMETERS": ["q"], "MASKED_NAMES": {"pin"}}
    read = get_settings()
    assert (("/admin/",), {"q"}, {"pin"}) == (read.EXCLUDE_PATHS, read.QUERY_PARAMETERS, read.MASKED_NAMES)


def test_settings_print_without_options(configure):
    configure(configured={"URL": "u", "TOKEN": "hush"})
    assert repr(get_settings()) == "<Settings: configured; memory>"
