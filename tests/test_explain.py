"""``explain MESSAGE_ID``: what became of one event."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from pluginhost import PermanentError, RetryableError, host
from pluginhost.delivery.envelopes import unpack
from pluginhost.delivery.intake import take
from pluginhost.delivery.lanes import claim
from pluginhost.events import keyed_message_id, new_message_id
from pluginhost.models import Chunk, Delivery, Envelope
from pluginhost.operations.explaining import explain, made
from pluginhost.operations.pausing import pause
from pluginhost.workers.worker import drain
from tests.commands import as_json, command, fails
from tests.samples import Configured, Folder, Recorder
from tests.steps import raising, run, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


@pytest.fixture
def answers(monkeypatch):
    """What the sample plugins say of an event, by alias; and what was set up and closed."""

    class Answers(dict):
        opened: list[str]

    found = Answers()
    found.opened = []

    def answer(self, message_id):
        said = found.get(self.alias)
        if isinstance(said, Exception):
            raise said
        return said

    monkeypatch.setattr(Recorder, "explain", answer)
    monkeypatch.setattr(Recorder, "setup", lambda self: found.opened.append(f"+{self.alias}"))
    monkeypatch.setattr(Recorder, "close", lambda self: found.opened.append(f"-{self.alias}"))
    return found


def accepted(*names):
    """Track events in one envelope; the message id of the last."""
    track(*names)
    return last_id()


def last_id():
    envelope = Envelope.objects.order_by("-id").first()
    return unpack(envelope.version, bytes(envelope.payload))[-1].event.message_id


def states(life):
    return sorted((finding.lane, finding.state) for finding in life.findings)


def look(message_id, database):
    return explain(message_id, database, host.registry.runners)


def test_an_event_that_no_worker_has_taken(database, configure):
    configure("outbox", recorder={}, folder={})
    message_id = accepted("a", "b")
    life = look(message_id, database)
    assert states(life) == [("folder", "not taken"), ("recorder", "not taken")]
    assert {finding.name for finding in life.findings} == {"b"}
    assert abs((life.made - timezone.now()).total_seconds()) < 60
    assert "recorder: waits for a worker to take it, accepted 2" in command("explain", message_id)


def test_its_place_in_a_chunk(database, configure):
    configure("outbox", recorder={"RETRY_DELAY": 60}, folder={"RETRY_DELAY": 60})
    Recorder.act["recorder"] = raising(lambda: RetryableError("away"), "c")
    Recorder.act["folder"] = raising(lambda: RetryableError("away"))
    track("a")
    first = last_id()
    track("b", "c")
    run(database, "recorder")
    run(database, "folder")
    last = Delivery.objects.get(lane="folder")
    assert Delivery.objects.get(lane="recorder").done == 2

    assert states(look(first, database)) == [("folder", "waiting"), ("recorder", "finished")]
    third = unpack(1, bytes(Chunk.objects.get().payload))[2].event.message_id
    life = look(third, database)
    assert states(life) == [("folder", "waiting"), ("recorder", "waiting")]
    finding = next(each for each in life.findings if each.lane == "folder")
    assert (finding.attempts, finding.reason, finding.due_at) == (1, "RetryableError: away", last.due_at)
    text = command("explain", third)
    assert "folder: waits, accepted 2" in text
    assert ", attempts so far 1: RetryableError: away" in text
    assert "recorder: finished: delivered, skipped or discarded" in command("explain", first)
    pause("folder", database)
    assert "the lane is paused" in command("explain", third)


def test_one_that_a_worker_holds(database, configure):
    configure("outbox", recorder={})
    message_id = accepted("a")
    take(database)
    claim(host.registry.runners["recorder"], database)
    assert states(look(message_id, database)) == [("recorder", "in hand")]
    assert "recorder: a worker holds it right now, attempt 1" in command("explain", message_id)
    Delivery.objects.update(due_at=Now() - dt.timedelta(seconds=1))
    assert states(look(message_id, database)) == [("recorder", "waiting")]


def test_one_that_is_dead(database, configure):
    configure("outbox", recorder={}, folder={"RETRY_DELAY": 60})
    Recorder.act["recorder"] = raising(lambda: PermanentError("no such goal"), "b")
    Recorder.act["folder"] = raising(lambda: RetryableError("away"))
    message_id = accepted("a", "b", "c")
    drain(host.registry.runners, database)
    message_id = Delivery.objects.get(state="dead").message_id
    # The chunk is still there for the other lane, and this lane has passed the event's place.
    assert states(look(message_id, database)) == [("folder", "waiting"), ("recorder", "dead")]
    assert "recorder: dead, accepted 2" in command("explain", message_id.upper())
    assert "PermanentError: no such goal" in command("explain", message_id)


def test_an_alias_that_was_removed(database, configure):
    configure("outbox", recorder={})
    message_id = accepted("a")
    configure("outbox", folder={})
    assert "recorder: not enabled, so nothing is delivered there" in command("explain", message_id)


def test_the_receivers_are_asked_where_nothing_is_owed(database, configure, answers):
    configure("outbox", recorder={}, folder={}, second={"PLUGIN": "recorder", "RETRY_DELAY": 60})
    Recorder.act["second"] = raising(lambda: RetryableError("away"))
    message_id = accepted("a")
    drain(host.registry.runners, database)
    for runner in host.registry.runners.values():
        runner.close()
    answers.opened.clear()
    answers["recorder"] = "The file has it."

    life = look(message_id, database)

    assert life.answers == {"recorder": "The file has it.", "folder": None}
    assert states(life) == [("second", "waiting")]
    assert answers.opened == ["+recorder", "-recorder", "+folder", "-folder"]
    text = command("explain", message_id)
    assert "  recorder: The file has it.\n" in text
    assert "  folder: nothing in the outbox. If the event was for this lane" in text


def test_a_receiver_that_can_not_be_asked(database, configure, answers):
    configure("outbox", recorder={}, folder={})
    message_id = accepted("a")
    drain(host.registry.runners, database)
    answers["recorder"] = OSError("no route to host")
    answers["folder"] = "The file has it."
    life = look(message_id, database)
    assert life.errors == {"recorder": "OSError: no route to host"}
    assert life.found
    assert "recorder: could not be asked: OSError: no route to host" in command("explain", message_id)
    answers["folder"] = None
    assert "could not be asked" in fails("explain", message_id)[0]


def test_no_secret_is_told(database, configure, answers, monkeypatch):
    configure("outbox", configured={"URL": "https://example.com", "TOKEN": "s3cr3t"})
    monkeypatch.setattr(Configured, "explain", lambda self, message_id: "asked with s3cr3t")
    assert look(new_message_id(), database).answers == {"configured": "asked with ********"}


def test_one_of_which_nothing_is_known(database, configure):
    configure("outbox", recorder={})
    track("a")
    message_id = new_message_id()
    printed, error = fails("explain", message_id)
    assert error == f"event {message_id} was not found."
    assert "Nothing is known of it. " in printed
    printed, _ = fails("explain", message_id, "--json")
    assert '"found": false' in printed


def test_an_id_that_another_event_speaks_of_is_not_that_event(database, configure):
    configure("outbox", recorder={})
    message_id = new_message_id()
    host.track(None, "copied", {"of": message_id})
    assert look(message_id, database).findings == []
    take(database)
    assert look(message_id, database).findings == []


def test_a_damaged_payload_with_the_id_in_it(database, configure):
    configure("outbox", recorder={})
    track("a")
    message_id = last_id()
    Envelope.objects.update(payload=b'[{"message_id":"' + message_id.encode())
    life = look(message_id, database)
    assert (life.findings, life.unreadable) == ([], 1)
    assert "1 damaged payloads have this id in them" in fails("explain", message_id)[0]


def test_the_same_key_twice_is_found_twice(database, configure):
    configure("outbox", recorder={})
    for _ in range(2):
        host.track(None, "a", key="order 7")
    life = look(keyed_message_id("a", "order 7"), database)
    assert states(life) == [("recorder", "not taken")] * 2
    assert life.made is None


def test_as_json(database, configure):
    configure("outbox", recorder={}, folder={})
    Recorder.act["recorder"] = raising(lambda: PermanentError("no"))
    message_id = accepted("a")
    drain(host.registry.runners, database)
    report = as_json("explain", message_id)
    assert (report["message_id"], report["found"], report["answers"]) == (message_id, True, {"folder": None})
    (finding,) = report["findings"]
    assert (finding["lane"], finding["state"], finding["reason"]) == ("recorder", "dead", "PermanentError: no")
    assert dt.datetime.fromisoformat(report["made"]).tzinfo
    assert Folder.batches == [1]


@pytest.mark.parametrize("text", ["", "nonsense", "123"])
def test_words_that_are_no_message_id(database, configure, text):
    configure("outbox", recorder={})
    track("a")
    assert made(text) is None
    assert "was not found" in fails("explain", text)[1]
