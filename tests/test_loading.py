"""From the setting to plugin objects: what is found, what is imported, and what is refused with which words."""

from __future__ import annotations

import re
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory

import pluginhost
from pluginhost import ConfigurationError, host
from pluginhost.delivery import memory
from pluginhost.loading import entry_points
from pluginhost.registry import load_registry
from tests.flawed import Shape
from tests.samples import Filter, Recorder


@pytest.fixture
def error_of(configure):
    """The one error of this configuration, as the checks see it and as code meets it."""

    def error_of(**plugins):
        configure(**plugins)
        [error] = load_registry().errors
        with pytest.raises(ImproperlyConfigured) as raised:
            host.track(None, "anything")
        assert raised.value.id == error.id
        assert str(raised.value) == f"{error.message} {error.hint}"
        return error

    return error_of


@pytest.mark.parametrize("aliases", [["snippet", "b", "a"], ["a", "snippet", "b"]])
def test_the_order_of_the_setting_is_the_order_of_calls(configure, aliases):
    snippets = {alias: {"PLUGIN": "snippet"} for alias in aliases}
    lanes = {f"{alias}-lane": {"PLUGIN": "recorder"} for alias in aliases}
    configure(**snippets, **lanes)

    html = host.render(RequestFactory().get("/"))

    assert re.findall(r"<!-- (\w+)", html) == aliases
    assert list(host.registry.plugins) == [*snippets, *lanes]
    assert list(host.registry.runners) == list(lanes)


def test_filters_are_asked_in_the_order_of_the_setting(configure, monkeypatch):
    asked = []
    configure(z={"PLUGIN": "filter"}, filter={}, a={"PLUGIN": "filter"}, recorder={})
    monkeypatch.setattr(Filter, "answer", lambda plugin, request, user: asked.append(plugin.alias))

    host.track(None, "something")

    assert asked == ["z", "filter", "a"]


def test_only_what_is_enabled_is_imported(configure):
    sys.modules.pop("tests.apart", None)
    configure(recorder={})

    assert "apart" in {entry_point.name for entry_point in entry_points()}
    assert host.registry.plugins.keys() == {"recorder"}
    assert "tests.apart" not in sys.modules

    configure(apart={})
    assert host.registry.plugins.keys() == {"apart"}
    assert "tests.apart" in sys.modules


def test_a_plugin_without_a_delivery_hook_has_no_lane(configure):
    configure(apart={}, snippet={})

    assert host.registry.runners == {}
    assert host.track(None, "for nobody") is None


def test_a_name_that_is_not_installed(error_of):
    error = error_of(recoder={})

    assert error.id == "pluginhost.E002"
    assert error.message == "PLUGINHOST['PLUGINS']['recoder']: no installed package offers a plugin named 'recoder'."
    assert error.hint.startswith("Did you mean 'recorder'? Installed are: ")
    assert "folder, " in error.hint


def test_the_option_plugin_names_what_is_not_installed(error_of):
    error = error_of(main={"PLUGIN": "foldr"})

    assert "['main']: no installed package offers a plugin named 'foldr'" in error.message
    assert "Did you mean 'folder'?" in error.hint


def test_two_distributions_that_offer_one_name(error_of):
    error = error_of(twice={})

    assert error.id == "pluginhost.E002"
    assert error.message.endswith("offer a plugin named 'twice': pluginhost-other, pluginhost-samples.")
    assert error.hint == "Uninstall all but one."


@pytest.mark.parametrize("metadata", [None, "", "Metadata-Version: 2.1\nName: torn\n"], ids=["none", "empty", "torn"])
def test_a_distribution_whose_metadata_is_broken(configure, monkeypatch, tmp_path, metadata):
    home = tmp_path / "torn-1.0.dist-info"
    home.mkdir()
    (home / "entry_points.txt").write_text("[pluginhost]\ntorn = tests.samples:Recorder\n")
    if metadata is not None:
        (home / "METADATA").write_text(metadata)
    monkeypatch.syspath_prepend(tmp_path)
    configure(torn={}, recorder={})

    loaded = host.registry.plugins
    assert list(loaded) == ["torn", "recorder"]
    assert (loaded["torn"].distribution, loaded["torn"].version) == ("torn" if metadata else "unknown distribution", "")


def test_a_module_that_cannot_be_imported(error_of):
    error = error_of(unimportable={})

    assert error.id == "pluginhost.E003"
    assert error.message.startswith("PLUGINHOST['PLUGINS']['unimportable'] (pluginhost-samples): ")
    assert "No module named 'tests.no_such_module'" in error.message
    with pytest.raises(ConfigurationError) as raised:
        host.registry  # noqa: B018
    assert isinstance(raised.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("alias", "id_", "message", "hint"),
    [
        ("notaplugin", "E004", "the entry point names <class", "It must name a subclass of pluginhost.Plugin."),
        ("noclass", "E004", "the entry point names <function no_class", "must name a subclass of pluginhost.Plugin"),
        ("noclassofoptions", "E004", "NoClassOfOptions.Options is Options()", "a subclass of pluginhost.Options"),
        ("notoptions", "E004", "NotOptions.Options is <class 'dict'>", "must be a subclass of pluginhost.Options"),
        ("unresolved", "E004", "NameError: name 'Decimal' is not defined", "must not fail"),
        ("reserved", "E004", "Reserved.Options declares TIMEOUT", "The host keeps these names for itself"),
        ("variesontext", "E004", "VariesOnText.varies_on is 'Cookie'", "a frozenset of names of headers"),
        ("variesonlist", "E004", "VariesOnList.varies_on is ['Cookie']", "a frozenset of names of headers"),
        ("uncertain", "E004", "Uncertain could not be made: ZeroDivisionError", "connect in setup()"),
        ("failinginit", "E004", "FailingInit could not be made: RuntimeError: no (", "connect in setup()"),
        ("future", "E008", "needs pluginhost 99.1 or newer; this is 0.", "Upgrade pluginhost"),
        ("modelled", "E007", "INSTALLED_APPS lacks its app", 'Add the line "pluginhost_absent" to INSTALLED_APPS'),
    ],
)
def test_a_class_that_is_wrong(error_of, alias, id_, message, hint):
    error = error_of(**{alias: {}})

    assert error.id == f"pluginhost.{id_}"
    assert error.message.startswith(f"PLUGINHOST['PLUGINS']['{alias}'] (pluginhost-")
    assert message in error.message
    assert hint in error.hint


def test_a_failing_init_says_in_which_line(error_of):
    assert re.search(r"\(\S+samples\.py:\d+\)\.$", error_of(failinginit={}).message)


@pytest.mark.parametrize("version", ["0.1", "0.1rc1", "0.0.9", pluginhost.__version__])
def test_a_plugin_for_this_host_or_an_older_one(configure, monkeypatch, version):
    monkeypatch.setattr(Recorder, "requires_host", version)
    configure(recorder={})
    assert host.registry.plugins


def test_a_plugin_whose_app_is_installed(configure, monkeypatch):
    monkeypatch.setattr(Recorder, "django_app", "tests.site")
    configure(recorder={})
    assert host.registry.plugins


GOOD = {"URL": "https://example.com/", "TOKEN": "hush"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (GOOD | {"TOKN": "x"}, "there is no option 'TOKN'. Did you mean 'TOKEN'?"),
        (GOOD | {"tIMEOUT": 3}, "there is no option 'tIMEOUT'. Did you mean 'TIMEOUT'?"),
        ({"URL": "https://example.com/"}, "the option TOKEN is missing."),
        (GOOD | {"URL": 3}, "URL: Expected `str`, got `int`."),
        (GOOD | {"RATE": "3"}, "RATE: Expected `float`, got `str`."),
        (GOOD | {"TOKEN": None}, "TOKEN: expected `str`."),
        (GOOD | {"RATE": 101}, "RATE is above 100."),
        (GOOD | {"BATCH_SIZE": 0}, "BATCH_SIZE is 0; it must be above 0."),
        (GOOD | {"TIMEOUT": True}, "TIMEOUT: Expected `float | null`, got `bool`."),
        (GOOD | {"ON_UNCERTAIN": "resent"}, "ON_UNCERTAIN: must be one of 'resend', 'dead'. Did you mean 'resend'?"),
    ],
)
def test_options_that_are_wrong(error_of, options, problem):
    error = error_of(configured=options)

    assert error.id == "pluginhost.E005"
    assert error.message == f"PLUGINHOST['PLUGINS']['configured'] (pluginhost-samples): {problem}"
    assert error.hint.startswith("Its options are: URL, TOKEN, RATE; every alias also takes BACKLOG_LIMIT, ")


def test_the_words_within_an_option_are_told_and_its_value_is_not(error_of):
    error = error_of(journal={"TYPES": ["track", "tack"]})

    assert error.message.endswith("TYPES: must be one of 'track', 'page', 'identify', 'alias'.")


def test_several_problems_with_options_are_told_at_once(error_of):
    message = error_of(configured={"URL": 3, "RAET": 1, "TIMEOUT": -1}).message

    assert "'RAET'. Did you mean 'RATE'?" in message
    assert "URL: Expected `str`" in message
    assert "TOKEN is missing" in message
    assert "TIMEOUT is -1.0; it must be above 0" in message


def test_post_init_that_fails_hard_is_an_error_of_this_alias_alone(error_of):
    error = error_of(leaky={"TOKEN": "hush", "AT": "options hard"}, recorder={})

    assert error.id == "pluginhost.E005"
    assert "Leaky.Options raised LookupError: " in error.message
    assert "hush" not in error.message
    assert load_registry().plugins.keys() == {"recorder"}


def test_options_are_converted_and_kept(configure):
    configure(configured=GOOD | {"TIMEOUT": 7, "PURPOSE": "marketing", "CONCURRENCY": 2, "BATCH_SIZE": 9})

    plugin = host.registry.plugins["configured"].plugin
    assert plugin.options.TOKEN.reveal() == "hush"
    assert plugin.options.RATE == 1.0
    assert (plugin.timeout, plugin.purpose, plugin.concurrency, plugin.batch_size) == (7.0, "marketing", 2, 9)
    assert repr(plugin) == "<Configured 'configured'>"


def test_a_secret_may_be_given_as_one(configure):
    configure(configured=GOOD | {"TOKEN": pluginhost.Secret("hush")})
    assert host.registry.plugins["configured"].plugin.options.TOKEN.reveal() == "hush"


def test_an_option_of_a_type_of_the_plugins_own(error_of, configure):
    assert "SHAPE: expected `Shape`, got `str`." in error_of(chosen={"SHAPE": "round"}).message

    shape = Shape()
    configure(chosen={"SHAPE": shape})
    assert host.registry.plugins["chosen"].plugin.options.SHAPE is shape


def test_two_aliases_of_one_plugin_have_options_of_their_own(configure):
    configure(configured=GOOD, other={"PLUGIN": "configured", **GOOD, "URL": "https://other.example.com/"})

    plugins = host.registry.plugins
    assert [plugins[alias].plugin.options.URL for alias in ("configured", "other")] == [
        "https://example.com/",
        "https://other.example.com/",
    ]
    assert plugins["other"].plugin.alias == "other"
    assert plugins["other"].distribution == "pluginhost-samples"
    assert plugins["other"].version == "1.0"


@pytest.mark.django_db(transaction=True)
def test_two_aliases_of_one_plugin_have_lanes_of_their_own(configure):
    configure("inline", recorder={}, second={"PLUGIN": "recorder"})

    host.track(None, "for one", plugins={"second": False})
    host.track(None, "for both")

    seen = {alias: [event.name for event in events] for alias, events in Recorder.seen.items()}
    assert seen == {"recorder": ["for one", "for both"], "second": ["for both"]}


def test_all_errors_are_told_together_and_the_others_load(configure):
    configure(recoder={}, recorder={}, misspelt={}, configured={}, folder={})

    registry = load_registry()
    assert {error.id for error in registry.errors} == {"pluginhost.E002", "pluginhost.E005", "pluginhost.E006"}
    assert list(registry.plugins) == ["recorder", "folder"]
    with pytest.raises(ConfigurationError) as raised:
        host.registry  # noqa: B018
    for alias in ("recoder", "misspelt", "configured"):
        assert f"['{alias}']" in str(raised.value)


def test_an_error_that_is_raised_often_does_not_grow(configure):
    configure(recoder={})

    def depth():
        with pytest.raises(ConfigurationError) as raised:
            host.registry  # noqa: B018
        return len(raised.traceback)

    assert depth() == depth() == depth()


def test_a_registry_is_loaded_once_and_again_when_the_setting_changes(configure):
    configure(recorder={})
    first = host.registry
    assert host.registry is first

    configure(recorder={}, folder={})
    assert host.registry is not first
    host.track(None, "again")
    assert len(memory.events) == 1
