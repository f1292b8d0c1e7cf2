"""Secrets among the options appear in no repr, error, log, traceback or listing."""

from __future__ import annotations

import copy
import io
import pickle
import secrets
import traceback
from pathlib import Path

import pytest
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.test import RequestFactory

import pluginhost
from pluginhost import Secret, host
from pluginhost.conf import get_settings
from pluginhost.models import Delivery
from pluginhost.options import redacted
from pluginhost.registry import load_registry

PACKAGE = str(Path(pluginhost.__file__).parent)


@pytest.fixture
def secret():
    return secrets.token_hex(12)


@pytest.fixture
def seen(caplog, capfd):
    """All that a person could see: what was collected, logs, and both streams."""
    collected = []
    caplog.set_level("DEBUG")

    class Seen:
        def add(self, *values):
            collected.extend(f"{value!r}\n{value}" for value in values)

        def frames(self, error):
            """The error as pages and mails show it: with the local variables of the host's frames."""
            told = traceback.TracebackException.from_exception(error, capture_locals=True)
            collected.append("".join(traceback.format_exception(error)))
            while told:
                for frame in told.stack:
                    if frame.filename.startswith(PACKAGE):
                        collected.append(repr(frame.locals))
                told = told.__cause__ or (None if told.__suppress_context__ else told.__context__)

        def text(self):
            out = capfd.readouterr()
            return "\n".join([*collected, caplog.text, out.out, out.err])

    return Seen()


@pytest.mark.parametrize(
    "wrong",
    [
        {"AT": "options"},
        {"AT": "options hard"},
        {"AT": "init"},
        {"AT": "check"},
        {"AT": "filter"},
        {"AT": "render"},
        {"AT": "setup"},
        {"AT": "event"},
        {"TIMEOUT": 0},
        {"NO_SUCH_OPTION": 1},
        {"TOKEN": None},
        {"MORE": 3},
        {"MORE": {"other": 3}},
        {"WRONG": "secret"},
        {"AT": "secret"},
        {"CODE": "secret"},
        {"ON_UNCERTAIN": "secret"},
        {"PLUGIN": "reserved"},
        {"PLUGIN": "unresolved"},
        {"PLUGIN": "misspelt"},
        {"PLUGIN": "unimportable"},
        {"PLUGIN": "leakyy"},
    ],
    ids=str,
)
@pytest.mark.django_db(transaction=True)
def test_a_secret_is_shown_nowhere(configure, seen, secret, wrong):
    wrong = {name: secret if value == "secret" else value for name, value in wrong.items()}
    good = {"TOKEN": f"https://ada:{secret}@example.com/", "MORE": {"other": secret}}
    configure("inline", leaky=good | wrong, recorder={})

    registry = load_registry()
    seen.add(get_settings(), registry, *registry.errors, *registry.plugins.values(), *registry.runners.values())
    seen.add(*(loaded.plugin.options for loaded in registry.plugins.values()))
    seen.add(*checks.run_checks(tags=["pluginhost"]))
    for act in (
        lambda: host.track(None, "something"),
        lambda: host.render(RequestFactory().get("/")),
        lambda: call_command("pluginhost"),
        lambda: call_command("pluginhost", "--json"),
    ):
        try:
            seen.add(act())
        except ImproperlyConfigured as error:
            seen.frames(error)

    text = seen.text()
    assert secret not in text
    assert len(text) > 1000


@pytest.mark.django_db(transaction=True)
def test_a_secret_is_not_in_what_the_lanes_store(configure, secret):
    configure("outbox", leaky={"TOKEN": secret, "AT": "event", "MAX_ATTEMPTS": 1})
    host.track(None, "something")

    from pluginhost.workers.worker import drain

    drain(host.registry.runners, "default")

    stored = Delivery.objects.get()
    assert stored.state == Delivery.State.DEAD
    assert "event failed with ********" in stored.reason
    assert secret not in stored.reason


@pytest.mark.parametrize("setting", [{"TRANSPRT": "inline"}, {"TRANSPORT": 3}, {"TEST": {"STRIKT": True}}], ids=str)
def test_a_wrong_setting_shows_no_secret(settings, seen, secret, setting):
    settings.PLUGINHOST = {"PLUGINS": {"leaky": {"TOKEN": secret}}, **setting}

    with pytest.raises(ImproperlyConfigured) as raised:
        host.track(None, "something")

    seen.frames(raised.value)
    assert secret not in seen.text()


def test_what_a_filter_raised_is_logged_without_the_secret(configure, caplog, secret):
    configure(leaky={"TOKEN": secret, "AT": "filter"})
    host.track(None, "something")
    assert "plugin leaky: filter_request failed" in caplog.text
    assert "RuntimeError: filter failed with ********" in caplog.text


def test_a_failing_init_is_told_without_the_secret(configure, secret):
    configure(leaky={"TOKEN": secret, "AT": "init"})
    [error] = load_registry().errors
    assert "Leaky could not be made: RuntimeError: init failed with ******** (" in error.message
    with pytest.raises(ImproperlyConfigured) as raised:
        host.registry  # noqa: B018
    assert raised.value.__cause__ is None


def test_the_password_of_a_secret_that_is_a_url_is_a_secret_too():
    holder = {"URI": [Secret("mongodb://ada:hush@db.example.com/"), Secret(""), Secret("http://[oops")]}
    assert redacted("hush, said ada to http://[oops", holder) == "********, said ada to ********"
    assert redacted("nothing", Secret("")) == "nothing"


def test_a_secret_shows_stars_however_it_is_printed():
    secret = Secret("hush")
    assert [str(secret), f"{secret}", "%s" % secret] == ["********"] * 3  # noqa: UP031
    assert repr(secret) == "'********'"
    assert (repr(Secret("")), str(Secret(""))) == ("''", "")
    assert not Secret("")
    assert secret.reveal() == "hush"
    assert secret == Secret("hush") != Secret("hash")
    assert secret != "hush"
    assert len({secret, Secret("hush")}) == 1


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy], ids=["pickle", "copy"])
def test_a_secret_does_not_leave_the_process(leave):
    with pytest.raises(TypeError, match="not pickled"):
        leave(Secret("hush"))


def test_a_secret_is_text():
    with pytest.raises(TypeError):
        Secret(3)


def test_options_show_stars(configure):
    configure(leaky={"TOKEN": "hush", "MORE": {"other": "hush"}})
    options = host.registry.plugins["leaky"].plugin.options
    assert repr(options) == "Options(TOKEN='********', AT='', MORE={'other': '********'}, CODE='')"


def test_the_listing_shows_stars(configure, db):
    configure(leaky={"TOKEN": "hush", "MORE": {"other": "hush"}})
    out = io.StringIO()
    call_command("pluginhost", stdout=out)
    assert "TOKEN='********'" in out.getvalue()
    assert "hush" not in out.getvalue()
