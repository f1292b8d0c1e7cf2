"""``manage.py pluginhost send-test ALIAS``: one event through one plugin, and what the answer means."""

from __future__ import annotations

import io
import re
from contextlib import nullcontext

import pytest
from django.core.management import CommandError, ManagementUtility, call_command

from pluginhost import DeliveryError, PartialFailure, PermanentError, RetryableError, SkipEvent, UncertainError, host
from tests.samples import Configured, Filter, Recorder

GOOD = {"URL": "https://example.com/", "TOKEN": "hush"}


def send_test(alias):
    out = io.StringIO()
    call_command("pluginhost", "send-test", alias, stdout=out, no_color=True)
    return out.getvalue()


def refused(alias):
    """What the command says when it fails."""
    with pytest.raises(CommandError) as raised:
        send_test(alias)
    return str(raised.value)


def raising(error):
    def act(event):
        raise error

    return act


# --- what is sent ---


def test_the_plugin_takes_one_event(configure):
    configure("outbox", recorder={}, other={"PLUGIN": "recorder"})  # without a database: nothing is stored
    lines = send_test("recorder").splitlines()
    assert lines[0] == "recorder: sending one event, past filters and outbox"
    assert re.fullmatch(r"recorder: The plugin took the event\. \(\d+\.\d s\)", lines[1])
    assert len(lines) == 2
    [event] = Recorder.seen["recorder"]
    assert (event.type, event.properties, event.anonymous_id) == ("track", {"test": True}, "pluginhost-test")
    assert "other" not in Recorder.seen


def test_two_tests_are_two_events(configure):
    configure(recorder={})
    send_test("recorder")
    send_test("recorder")
    first, second = Recorder.seen["recorder"]
    assert first.message_id != second.message_id


def test_a_plugin_that_takes_batches(configure, tmp_path):
    path = tmp_path / "written"
    configure(writer={"PATH": str(path)})
    assert "The plugin took the event." in send_test("writer")
    assert re.fullmatch(r"pluginhost test [0-9a-f-]{36}\n", path.read_text())


def test_no_filter_is_asked(configure):
    Filter.answer = False
    configure(filter={}, recorder={})
    send_test("recorder")
    assert not Filter.asked
    assert Recorder.seen["recorder"]


def test_a_plugin_may_say_more(configure, monkeypatch):
    monkeypatch.setattr(Recorder, "send_test", lambda self: f"{self.alias} is site 7.")
    configure(recorder={})
    assert "recorder: recorder is site 7. (" in send_test("recorder")


def test_it_is_set_up_before_and_closed_after(configure, monkeypatch):
    calls = []
    for name in ("setup", "send_test", "close"):
        monkeypatch.setattr(Recorder, name, lambda self, name=name: calls.append(name) or name)
    configure(recorder={})
    send_test("recorder")
    assert calls == ["setup", "send_test", "close"]


def test_it_is_closed_after_a_failure_too(configure, monkeypatch):
    closed = []
    monkeypatch.setattr(Recorder, "close", lambda self: closed.append(self.alias))
    configure(recorder={})
    Recorder.act["recorder"] = raising(PermanentError("no"))
    refused("recorder")
    assert closed == ["recorder"]


def test_a_setup_that_fails(configure, monkeypatch):
    closed = []
    monkeypatch.setattr(Recorder, "close", lambda self: closed.append(self.alias))
    monkeypatch.setattr(Recorder, "setup", lambda self: raising(ConnectionError("no route"))(None))
    configure(recorder={})
    assert refused("recorder").endswith("so it would be tried again.\nConnectionError: no route")
    assert not closed  # what was not set up has nothing to close


def test_what_it_tracks_itself_is_refused(configure, monkeypatch):
    monkeypatch.setattr(Recorder, "send_test", lambda self: str(host.track(None, "x")))
    configure(recorder={})
    assert "called from within a hook of 'recorder'" in refused("recorder")


# --- what an answer means ---


class Strange(PermanentError):
    pass


@pytest.mark.parametrize(
    ("error", "meaning", "words"),
    [
        (RetryableError("503 from the server"), "It would wait in its lane and be tried again.", "RetryableError: 503"),
        (RetryableError("slow down", retry_after=5), "be tried again.", "RetryableError: slow down"),
        (PermanentError("401: wrong key"), "It would become a dead letter: trying again", "PermanentError: 401: wrong"),
        (Strange("400"), "It would become a dead letter: trying again", "Strange: 400"),
        (SkipEvent("not for me"), "The plugin skips it: such an event is not for it.", "SkipEvent: not for me"),
        (
            UncertainError("no answer"),
            "no answer says whether it arrived. It would be sent again.",
            "UncertainError: no answer",
        ),
        (PartialFailure({"x": PermanentError("E11000")}), "It would become a dead letter", "PermanentError: E11000"),
        (PartialFailure({"x": UncertainError("gone")}), "It would be sent again.", "UncertainError: gone"),
        (PartialFailure({"x": PartialFailure({"y": SkipEvent("z")})}), "The plugin skips it", "SkipEvent: z"),
        (
            LookupError("a bug"),
            "The plugin failed without saying what that means, so it would be tried again.",
            "LookupError: a bug",
        ),
        (DeliveryError("500"), "It would be tried again. If that fails too", "DeliveryError: 500"),
        (SystemExit(3), "The plugin failed without saying what that means", "SystemExit: 3"),
        (LookupError(), "The plugin failed without saying", "LookupError"),
    ],
    ids=repr,
)
def test_each_error_is_explained(configure, error, meaning, words):
    configure(recorder={})
    Recorder.act["recorder"] = raising(error)
    message = refused("recorder")
    first, _, last = message.partition("\n")
    uncertain = "says whether" in meaning or "sent again" in meaning
    assert first.startswith("recorder: perhaps delivered. " if uncertain else "recorder: not delivered. ")
    assert meaning in first
    assert last.startswith(words)
    assert "\n" not in last


@pytest.mark.parametrize(
    ("dedupes", "option", "fate"),
    [
        (True, "dead", "be sent again"),
        (True, "resend", "be sent again"),
        (False, "resend", "be sent again"),
        (False, "dead", "become a dead letter"),
    ],
)
def test_what_becomes_of_an_uncertain_event(configure, monkeypatch, dedupes, option, fate):
    monkeypatch.setattr(Recorder, "dedupes", dedupes)
    configure(recorder={"ON_UNCERTAIN": option})
    Recorder.act["recorder"] = raising(UncertainError("no answer"))
    first = refused("recorder").partition("\n")[0]
    assert first.startswith("recorder: perhaps delivered. It was sent, but no answer says whether it arrived.")
    assert first.endswith(f"It would {fate}.")


def test_a_partial_failure_of_nothing_is_a_delivery(configure):
    """As in a lane: the events that it does not name are delivered."""
    configure(recorder={})
    Recorder.act["recorder"] = raising(PartialFailure({}))
    assert "recorder: The plugin took the event." in send_test("recorder")


def test_an_interruption_is_no_answer(configure):
    configure(recorder={})
    Recorder.act["recorder"] = raising(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        send_test("recorder")


# --- secrets ---


def test_no_error_shows_a_secret(configure):
    configure(configured=GOOD)
    message = refused("configured")
    assert "could not post with ********" in message
    assert "hush" not in message


def test_no_answer_shows_a_secret(configure, monkeypatch):
    """Such as a URL that the plugin has asked."""
    monkeypatch.setattr(
        Configured, "send_test", lambda self: f"Asked {self.options.URL}?k={self.options.TOKEN.reveal()}"
    )
    configure(configured=GOOD)
    assert "configured: Asked https://example.com/?k=******** (" in send_test("configured")


def test_no_traceback_shows_one_either(configure):
    configure(configured=GOOD)
    with pytest.raises(CommandError) as raised:
        send_test("configured")
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


# --- which alias ---


def test_an_alias_that_is_none(configure):
    configure(recorder={}, filter={})
    assert refused("recoder") == (
        "there is no alias 'recoder'. Did you mean 'recorder'? Enabled are: recorder, filter."
    )
    assert refused("zzz") == "there is no alias 'zzz'. Enabled are: recorder, filter."


def test_an_alias_without_a_lane(configure):
    configure(recorder={}, filter={}, snippet={})
    assert refused("filter") == "filter has no lane: it delivers nothing. Lanes are: recorder."


def test_turned_off(configure):
    configure(recorder={}, ENABLED=False)
    assert "ENABLED" in refused("recorder")


def test_without_an_alias(configure, capsys):
    configure(recorder={})
    with pytest.raises(SystemExit) as raised:
        call_command("pluginhost", "send-test")
    assert raised.value.code == 2
    assert "the following arguments are required: ALIAS" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("act", "status"), [(lambda event: None, None), (raising(PermanentError("no")), 1)], ids=["good", "bad"]
)
def test_the_exit_status(configure, capsys, act, status):
    configure(recorder={})
    Recorder.act["recorder"] = act
    manage = ManagementUtility(["manage.py", "pluginhost", "send-test", "recorder", "--no-color", "--skip-checks"])
    with pytest.raises(SystemExit) if status else nullcontext() as raised:
        manage.execute()
    assert status is None or raised.value.code == status
    output = capsys.readouterr()
    assert ("The plugin took the event." in output.out) is (status is None)
    assert ("CommandError: recorder: not delivered." in output.err) is (status == 1)
