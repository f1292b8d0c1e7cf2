"""What pluggy allows or keeps silent about, and the host does not."""

from __future__ import annotations

import logging

import pytest
from django.test import RequestFactory

from pluginhost import dispatch, hookspecs, host
from pluginhost.delivery import memory
from pluginhost.loading import HOOKS
from pluginhost.registry import load_registry
from tests.flawed import Halfway, Lazy
from tests.samples import Filter, Properties, Recorder


@pytest.mark.parametrize(
    ("alias", "problem"),
    [
        ("misspelt", "it implements an unknown hook 'on_evnt'. Did you mean 'on_event'?"),
        ("wrongarguments", "Argument(s) {'evnt'} are declared in the hookimpl but can not be found in the hookspec"),
        ("wrapper", "its on_event is a hook wrapper; every plugin answers for itself alone."),
        ("oldwrapper", "its on_event is a hook wrapper; every plugin answers for itself alone."),
        ("first", "its on_event asks for tryfirst or trylast; the order of the setting is the order of calls."),
        ("last", "its filter_request asks for tryfirst or trylast; the order of the setting is the order of calls."),
        ("both", "it implements both on_event and aggregate; one of them delivers."),
        ("unmarked", "its method on_event is not marked with @hookimpl, so it would never be called."),
        ("coroutine", "its on_event is a coroutine or a generator; hooks are plain functions."),
        ("generator", "its on_event is a coroutine or a generator; hooks are plain functions."),
        ("asyncgenerator", "its on_event is a coroutine or a generator; hooks are plain functions."),
        ("default", "its on_event would not be passed 'event': name each argument, without a default."),
        ("keywordonly", "its on_event would not be passed 'event': name each argument, without a default."),
        ("varied", "its on_event would not be passed 'arguments': name each argument, without a default."),
    ],
)
def test_a_hook_that_is_wrong(configure, alias, problem):
    configure(**{alias: {}, "recorder": {}})

    registry = load_registry()
    [error] = registry.errors
    assert error.id == "pluginhost.E006"
    assert error.message.startswith(f"PLUGINHOST['PLUGINS']['{alias}'] (pluginhost-")
    assert problem in error.message
    assert error.hint.startswith("The hooks are filter_request, on_event, aggregate, render_client;")
    assert not registry.manager.has_plugin(alias)
    assert registry.plugins.keys() == registry.runners.keys() == {"recorder"}


def test_a_registration_that_fails_half_way_leaves_nothing(configure):
    """pluggy keeps the plugin and the hooks that it had come to before the bad one."""
    configure(halfway={}, filter={}, recorder={})

    registry = load_registry()
    assert [error.id for error in registry.errors] == ["pluginhost.E006"]
    assert list(registry.plugins) == ["filter", "recorder"]
    assert [implementation.alias for implementation in registry.filters] == ["filter"]
    for hook in HOOKS:
        found = getattr(registry.manager.hook, hook).get_hookimpls()
        assert "halfway" not in [implementation.plugin_name for implementation in found]
    assert not Halfway.called


def test_properties_are_not_evaluated_while_a_plugin_is_registered(configure):
    configure(properties={})

    assert host.registry.runners.keys() == {"properties"}
    assert Properties.touched == []

    configure(lazy={})
    assert host.registry.plugins["lazy"].hooks == ("filter_request", "on_event")
    assert Lazy.touched == []


def test_a_hook_may_be_implemented_under_another_name(configure):
    configure(named={})
    assert host.registry.plugins["named"].hooks == ("on_event",)
    assert host.track(None, "something")


def test_a_hook_of_a_later_host_may_be_marked_as_optional(configure):
    configure(optional={}, recorder={})
    assert host.registry.plugins["optional"].hooks == ("filter_request",)
    assert host.track(None, "refused by a static method") is None


def test_a_hook_that_is_set_to_none_is_no_hook(configure):
    configure(folder={})
    assert host.registry.plugins["folder"].delivery_hook == "aggregate"


def test_one_implementation_that_raises_does_not_stop_the_others(configure, caplog):
    configure(broken={}, filter={}, snippet={}, recorder={}, last={"PLUGIN": "broken"})

    request = RequestFactory().get("/")
    assert host.track(request, "something")
    html = host.render(request)

    assert len(Filter.asked) == 1, "once a request, for events and page together"
    assert html.startswith("<!-- snippet")
    assert [event.name for event in memory.events] == ["something"]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "plugin broken: filter_request failed",
        "plugin last: filter_request failed",
        "plugin broken: render_client failed",
        "plugin last: render_client failed",
    ]
    assert "RuntimeError: broken filter" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_one_delivery_that_raises_does_not_stop_the_others(configure, caplog):
    configure("inline", broken={}, recorder={}, last={"PLUGIN": "broken"}, folder={})

    assert host.track(None, "something")

    assert {alias: len(events) for alias, events in Recorder.seen.items()} == {"recorder": 1, "folder": 1}
    assert "plugin broken: event" in caplog.text
    assert "plugin last: event" in caplog.text


def test_answers_keep_none_and_the_names_of_plugins(configure):
    configure(filter={}, broken={}, second={"PLUGIN": "filter"})
    Filter.answer = None

    answers = dispatch.ask("filter_request", host.registry.filters, request=None, user="ada")

    assert list(answers) == [("filter", None), ("second", None)]
    assert Filter.asked == [(None, "ada"), (None, "ada")]


def test_an_exception_that_shows_no_secret_is_logged_with_its_traceback(configure, caplog):
    configure(broken={}, recorder={})
    host.track(None, "something")
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info[0] is RuntimeError


def test_the_hooks_are_those_that_have_a_specification():
    specified = {name for name, value in vars(hookspecs).items() if hasattr(value, "pluginhost_spec")}
    assert specified == set(HOOKS)
