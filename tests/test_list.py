"""``manage.py pluginhost``: what is enabled, and what is in the lanes."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

import pluginhost
from pluginhost import ConfigurationError, host
from pluginhost.delivery.accounts import OUTCOMES
from pluginhost.management.subcommands.list import build_report
from pluginhost.workers.worker import drain

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)
GOOD = {"URL": "https://example.com/", "TOKEN": "hush"}


def run(*arguments):
    out = io.StringIO()
    call_command("pluginhost", *arguments, stdout=out, no_color=True)
    return out.getvalue()


def test_the_plugins_in_their_order(configure):
    configure("outbox", second={"PLUGIN": "configured", **GOOD}, filter={})
    text = run("list")
    assert text.startswith(f"pluginhost {pluginhost.__version__}, transport outbox\n")
    assert text.index("\nsecond\n  pluginhost-samples 1.0, purpose analytics\n  hooks: on_event\n") < text.index(
        "\nfilter\n  pluginhost-samples 1.0, purpose analytics\n  hooks: filter_request\n"
    )
    assert "  options: URL='https://example.com/', TOKEN='********', RATE=1.0\n" in text
    assert "hush" not in text


def test_the_list_is_what_the_command_does_without_a_word(configure):
    configure("outbox", recorder={})
    assert run() == run("list")
    assert json.loads(run("--json")) == json.loads(run("list", "--json")) == json.loads(run("--json", "list"))


def test_as_json(database, configure):
    configure("outbox", second={"PLUGIN": "configured", "PURPOSE": "marketing", **GOOD}, filter={})
    host.track(None, "something")
    report = json.loads(run("--json"))

    assert list(report) == ["pluginhost", "enabled", "transport", "plugins", "installed", "lanes"]
    assert (report["enabled"], report["transport"]) == (True, "outbox")
    assert report["plugins"][0] == {
        "alias": "second",
        "plugin": "configured",
        "distribution": "pluginhost-samples",
        "version": "1.0",
        "hooks": ["on_event"],
        "purpose": "marketing",
        "event_types": ["page", "track"],
        "personal_data": True,
        "options": {"URL": "https://example.com/", "TOKEN": "********", "RATE": 1.0},
    }
    assert report["plugins"][1]["event_types"] == []
    assert {"recorder", "folder"} <= set(report["installed"])
    assert report["lanes"] == {
        "second": {"accepted": 1, "delivered": 0, "skipped": 0, "waiting": 1, "dead": 0, "discarded": 0}
    }


def test_options_of_every_kind_are_json(configure):
    configure(leaky={"TOKEN": "hush", "MORE": {"other": "hush"}}, modelled={"PLUGIN": "recorder", "TIMEOUT": 3})
    text = run("--json")
    assert json.loads(text)["plugins"][0]["options"] == {
        "TOKEN": "********", "AT": "", "MORE": {"other": "********"}, "CODE": "",
    }  # fmt: skip
    assert "hush" not in text


def test_the_accounts_of_the_lanes(database, configure):
    configure("outbox", recorder={}, folder={})
    host.track(None, "first")
    drain(host.registry.runners, database)
    host.track(None, "second")

    text = run()
    account = "accepted 2, delivered 1, skipped 0, waiting 1, dead 0, discarded 0\n"
    assert f"\nlane recorder\n  {account}" in text
    assert f"\nlane folder\n  {account}" in text
    assert tuple(build_report(database)["lanes"]["folder"]) == OUTCOMES


def test_a_lane_that_is_no_longer_enabled_is_shown(configure):
    configure("outbox", recorder={})
    host.track(None, "left behind")
    configure("outbox", folder={})
    assert "lane recorder  (not enabled: its events wait)\n  accepted 1, " in run()


def test_another_database(configure):
    if "postgres" not in connections:
        pytest.skip("no PostgreSQL server")
    configure("outbox", recorder={})
    host.track(None, "here", using="postgres")
    assert "lane recorder" in run("--database", "postgres")
    assert "lane recorder" not in run("--database", "default")


def test_an_outbox_without_tables(database, configure):
    from pluginhost.models import Envelope

    configure(recorder={})
    table = Envelope._meta.db_table
    with connections[database].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
    try:
        assert "The outbox has no tables yet: run migrate." in run()
        assert json.loads(run("--json"))["lanes"] is None
    finally:
        with connections[database].cursor() as cursor:
            cursor.execute(f"ALTER TABLE elsewhere RENAME TO {table}")


def test_nothing_is_enabled(configure):
    configure("outbox")
    text = run()
    assert "No plugin is enabled. Installed are: " in text
    assert "recorder" in text


def test_turned_off(configure):
    configure("outbox", recorder={}, ENABLED=False)
    assert run().startswith(f"pluginhost {pluginhost.__version__}, transport outbox, turned off by ENABLED\n")
    assert json.loads(run("--json"))["plugins"] == []


def test_a_wrong_setting(configure):
    configure(recoder={})
    with pytest.raises(ConfigurationError, match="Did you mean 'recorder'"):
        run()


def test_a_word_that_is_no_subcommand(configure):
    configure(recorder={})
    with pytest.raises(CommandError, match="lst"):
        run("lst")
