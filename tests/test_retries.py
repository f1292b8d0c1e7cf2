"""What becomes of events that fail: retried, found by halving, dead with a reason, skipped, of unknown fate."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db.models import F
from django.db.models.functions import Now

from pluginhost import PartialFailure, PermanentError, RetryableError, SkipEvent, UncertainError, host, signals
from pluginhost.delivery import troubles
from pluginhost.delivery.intake import take
from pluginhost.delivery.work import step
from pluginhost.models import Chunk, Delivery, Lane
from pluginhost.operations import pausing
from pluginhost.workers.worker import drain
from tests.samples import Folder, Recorder
from tests.steps import account, make_due, raising, run, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


@pytest.fixture
def database(any_database):
    return any_database


@pytest.mark.parametrize("lane", ["recorder", "folder"])
def test_a_retryable_error_defers_the_rest_and_it_arrives_later(database, configure, lane):
    configure("outbox", **{lane: {"RETRY_DELAY": 60}})
    Recorder.act[lane] = raising(lambda: RetryableError("away"), "b")
    track("a", "b", "c")

    outcome = run(database, lane)

    assert outcome.deferred.reason == "RetryableError: away"
    waiting = Delivery.objects.annotate(wait=F("due_at") - Now()).get()
    assert 25 < waiting.wait.total_seconds() <= 60
    assert (waiting.attempts, waiting.token, waiting.reason) == (1, None, "RetryableError: away")
    assert seen(lane) == (["a"] if lane == "recorder" else [])
    assert step(host.registry.runners[lane], database) is None, "it is not due"

    Recorder.act.clear()
    make_due()
    run(database, lane)
    assert seen(lane) == ["a", "b", "c"]
    assert account(database, lane) == {"accepted": 3, "delivered": 3}


def test_retry_after_is_honoured_capped_and_no_attempt(database, configure):
    configure("outbox", folder={"RETRY_DELAY": 1})
    Recorder.act["folder"] = raising(lambda: RetryableError("slow down", retry_after=300))
    track("a")

    run(database, "folder")

    waiting = Delivery.objects.annotate(wait=F("due_at") - Now()).get()
    assert 290 < waiting.wait.total_seconds() <= 300
    assert waiting.attempts == 0

    Recorder.act["folder"] = raising(lambda: RetryableError("slow down", retry_after=10**9))
    make_due()
    run(database, "folder")
    waiting = Delivery.objects.annotate(wait=F("due_at") - Now()).get()
    assert 3590 < waiting.wait.total_seconds() <= 3600


@pytest.mark.parametrize("lane", ["recorder", "folder"])
@pytest.mark.parametrize("names", [("a",), ("a", "b", "c")], ids=["single", "batch"])
def test_a_wait_that_was_asked_for_is_never_an_attempt(database, configure, lane, names):
    """With two attempts in all, ten waits cost no event, be it in a chunk or on its own."""
    configure("outbox", **{lane: {"MAX_ATTEMPTS": 2}})
    Recorder.act[lane] = raising(lambda: RetryableError("quota", retry_after="30"))
    track(*names)
    take(database)

    for _ in range(10):
        make_due()
        assert step(host.registry.runners[lane], database).deferred.retry_after == 30
    assert set(Delivery.objects.values_list("attempts", "state", "token")) == {(0, "waiting", None)}
    assert account(database, lane) == {"accepted": len(names), "waiting": len(names)}

    Recorder.act[lane] = raising(lambda: RetryableError("away"))
    for _ in range(2 * len(names)):
        make_due()
        step(host.registry.runners[lane], database)
    assert account(database, lane) == {"accepted": len(names), "dead": len(names)}, "other failures count"


def test_a_wait_that_was_asked_for_in_a_partial_failure_is_no_attempt(database, configure):
    configure("outbox", folder={"MAX_ATTEMPTS": 1})

    def act(batch) -> None:
        raise PartialFailure({event.message_id: RetryableError("quota", retry_after=30) for event in batch})

    Recorder.act["folder"] = act
    track("a", "b")
    take(database)
    for _ in range(4):
        make_due()
        step(host.registry.runners["folder"], database)

    assert list(Delivery.objects.values_list("attempts", "n", "state")) == [(0, 1, "waiting")] * 2


@pytest.fixture
def lane_troubles():
    """What ``lane_troubled`` says."""
    found: list[str] = []

    def receiver(trouble, **details) -> None:
        found.append(trouble)

    troubles.reset()
    signals.lane_troubled.connect(receiver)
    yield found
    signals.lane_troubled.disconnect(receiver)
    troubles.reset()


@pytest.mark.parametrize("lane", ["recorder", "folder"])
def test_a_receiver_that_asks_to_wait_for_ever_is_a_trouble_of_its_lane(
    database, configure, caplog, lane, lane_troubles
):
    """Events wait as long as they are asked to, but not in silence; the trouble is over when something arrives."""
    configure("outbox", **{lane: {}})
    Recorder.act[lane] = raising(lambda: RetryableError("quota", retry_after=3600))
    track("a", "b")
    take(database)
    Delivery.objects.update(created=Now() - dt.timedelta(hours=30))

    step(host.registry.runners[lane], database)
    assert not Lane.objects.exists(), "only that no worker ran"
    for _ in range(5):
        make_due()
        step(host.registry.runners[lane], database)

    assert signals.flush()
    [trouble] = lane_troubles
    row = Lane.objects.get()
    assert (row.name, row.trouble) == (lane, trouble)
    assert "asks to wait, again and again" in trouble
    assert trouble.endswith(": RetryableError: quota")
    assert caplog.text.count("again and again") == 1
    assert account(database, lane) == {"accepted": 2, "waiting": 2}
    [view] = [view for view in pausing.overview(database) if view.lane == lane]
    assert (view.trouble, view.waiting) == (trouble, 2)

    Recorder.act.clear()
    for _ in range(3):
        make_due()
        step(host.registry.runners[lane], database)
    assert account(database, lane) == {"accepted": 2, "delivered": 2}
    assert not Lane.objects.exists()


def test_a_receiver_that_asks_to_wait_for_a_while_is_no_trouble(database, configure, lane_troubles):
    configure("outbox", folder={})
    Recorder.act["folder"] = raising(lambda: RetryableError("quota", retry_after=3600))
    track("a")
    take(database)
    Delivery.objects.update(created=Now() - dt.timedelta(hours=20))
    for _ in range(3):
        make_due()
        step(host.registry.runners["folder"], database)
    Recorder.act["folder"] = raising(lambda: RetryableError("away"))
    Delivery.objects.update(created=Now() - dt.timedelta(days=5))
    make_due()
    step(host.registry.runners["folder"], database)

    assert signals.flush()
    assert lane_troubles == []
    assert not Lane.objects.exists()


def test_the_delay_doubles_up_to_its_limit(database, configure):
    configure("outbox", folder={"RETRY_DELAY": 10, "RETRY_MAX_DELAY": 35})
    Recorder.act["folder"] = raising(lambda: RetryableError("away"))
    track("a")
    take(database)
    waits = []
    for _ in range(4):
        make_due()
        run(database, "folder")
        waits.append(Delivery.objects.annotate(wait=F("due_at") - Now()).get().wait.total_seconds())

    for wait, limit in zip(waits, [10, 20, 35, 35], strict=True):
        assert limit / 2 - 1 < wait <= limit


def test_a_permanent_error_is_a_dead_letter_with_its_reason(database, configure, caplog):
    configure("outbox", recorder={})
    Recorder.act["recorder"] = raising(lambda: PermanentError("no such goal"), "b")
    track("a", "b", "c")

    run(database, "recorder")

    letter = Delivery.objects.get()
    assert (letter.state, letter.n, letter.event_name) == ("dead", 1, "b")
    assert letter.reason == "PermanentError: no such goal"
    assert len(letter.message_id) == 36
    assert letter.message_id in caplog.text
    assert seen("recorder") == ["a", "c"]
    assert account(database, "recorder") == {"accepted": 3, "delivered": 2, "dead": 1}
    assert Chunk.objects.count() == 0


def test_one_bad_event_of_a_batch_is_found_by_halving(database, configure):
    configure("outbox", folder={})
    Recorder.act["folder"] = raising(lambda: PermanentError("400"), "event 77")
    track(*[f"event {number}" for number in range(200)])

    run(database, "folder")

    assert Delivery.objects.get().event_name == "event 77"
    assert len(seen("folder")) == 199
    assert len(Folder.batches) <= 2 * 8 + 1
    assert account(database, "folder") == {"accepted": 200, "delivered": 199, "dead": 1}


def test_an_unexplained_error_is_retried_whole_before_single_events_are_suspected(database, configure, caplog):
    configure("outbox", folder={})
    Recorder.act["folder"] = raising(lambda: KeyError("colour"), "bad")
    track("a", "bad", "c", "d")
    take(database)

    for attempt in range(2):
        make_due()
        run(database, "folder")
        assert seen("folder") == [], f"attempt {attempt} is of the whole batch"
    make_due()
    run(database, "folder")

    assert seen("folder") == ["a", "c", "d"]
    waiting = Delivery.objects.get()
    assert (waiting.state, waiting.event_name, waiting.n) == ("waiting", "bad", 1)
    assert "KeyError" in caplog.text
    assert "Traceback" in caplog.text


def test_a_receiver_that_is_away_is_not_asked_for_each_event(database, configure):
    configure("outbox", folder={}, recorder={})
    Recorder.act["folder"] = Recorder.act["recorder"] = raising(lambda: OSError("no route"))
    track(*["x"] * 300)
    take(database)
    make_due(attempts=10)

    run(database, "folder")
    assert len(Folder.batches) <= 11

    calls = []
    Recorder.act["recorder"] = lambda event: calls.append(event) or raising(lambda: OSError("no route"))(event)
    run(database, "recorder")
    assert len(calls) <= 11
    assert account(database, "recorder") == {"accepted": 300, "waiting": 300}


def test_the_last_attempt_makes_dead_letters_of_single_events(database, configure):
    configure("outbox", folder={"MAX_ATTEMPTS": 3}, recorder={"MAX_ATTEMPTS": 3})
    Recorder.act["folder"] = Recorder.act["recorder"] = raising(lambda: RetryableError("away"))
    track("a", "b")
    take(database)

    for _ in range(8):
        make_due()
        run(database, "folder")
        run(database, "recorder")

    for lane in ("folder", "recorder"):
        letters = Delivery.objects.filter(lane=lane)
        assert sorted(letters.values_list("event_name", "state", "n")) == [("a", "dead", 1), ("b", "dead", 1)]
        assert account(database, lane) == {"accepted": 2, "dead": 2}
    assert Chunk.objects.count() == 0


def test_an_event_that_holds_up_the_others_leaves_them(database, configure):
    configure("outbox", recorder={})
    Recorder.act["recorder"] = raising(lambda: RetryableError("never ready"), "stuck")
    track("stuck", "b", "c")
    take(database)

    for _ in range(3):
        make_due()
        run(database, "recorder")
    assert seen("recorder") == []
    make_due()
    run(database, "recorder")
    make_due()
    run(database, "recorder")

    assert seen("recorder") == ["b", "c"]
    assert Delivery.objects.get().event_name == "stuck"


def test_partial_failure_names_those_that_failed(database, configure):
    configure("outbox", folder={})

    def act(batch) -> None:
        ids = {event.name: event.message_id for event in batch}
        raise PartialFailure(
            {
                ids["dead"]: PermanentError("no"),
                ids["later"]: RetryableError("busy"),
                ids["skipped"]: SkipEvent("not for me"),
            }
        )

    Recorder.act["folder"] = act
    track("fine", "dead", "later", "skipped")
    run(database, "folder")

    assert sorted(Delivery.objects.values_list("event_name", "state")) == [("dead", "dead"), ("later", "waiting")]
    assert account(database, "folder") == {"accepted": 4, "delivered": 1, "skipped": 1, "dead": 1, "waiting": 1}


def test_skipped_events_are_counted_and_gone(database, configure):
    configure("outbox", recorder={}, folder={})
    Recorder.act["recorder"] = raising(lambda: SkipEvent("not for me"), "b")
    Recorder.act["folder"] = raising(lambda: SkipEvent("not for me"))
    track("a", "b")

    drain(host.registry.runners, database)

    assert account(database, "recorder") == {"accepted": 2, "delivered": 1, "skipped": 1}
    assert account(database, "folder") == {"accepted": 2, "skipped": 2}


def test_a_plugin_that_needs_identity_skips_events_without_a_person(database, configure, monkeypatch):
    configure("outbox", recorder={})
    monkeypatch.setattr(Recorder, "needs_identity", True)

    host.track(None, "nobody")
    host.track(None, "somebody", anonymous_id="a1")
    drain(host.registry.runners, database)

    assert seen("recorder") == ["somebody"]
    assert account(database, "recorder") == {"accepted": 2, "delivered": 1, "skipped": 1}


@pytest.mark.parametrize(("choice", "state"), [("dead", "dead"), ("resend", "waiting")])
def test_an_uncertain_event_is_treated_as_the_project_says(database, configure, monkeypatch, choice, state):
    configure("outbox", recorder={"ON_UNCERTAIN": choice})
    monkeypatch.setattr(Recorder, "dedupes", False)
    Recorder.act["recorder"] = raising(lambda: UncertainError("no answer"))
    track("a")

    run(database, "recorder")

    assert Delivery.objects.get().state == state


def test_an_uncertain_event_is_resent_where_the_receiver_dedupes(database, configure):
    configure("outbox", recorder={"ON_UNCERTAIN": "dead"})
    Recorder.act["recorder"] = raising(lambda: UncertainError("no answer"))
    track("a")

    run(database, "recorder")

    assert Delivery.objects.get().state == "waiting"


def test_a_setup_that_fails_is_tried_again_with_the_batch(database, configure, monkeypatch):
    configure("outbox", folder={})
    calls = []

    def setup(self) -> None:
        calls.append(self.alias)
        if len(calls) == 1:
            raise OSError("no route")

    monkeypatch.setattr(Folder, "setup", setup)
    track("a")
    assert run(database, "folder").deferred.reason == "OSError: no route"
    make_due()
    run(database, "folder")

    assert seen("folder") == ["a"]
    assert calls == ["folder", "folder"]


def test_a_lane_does_not_track(database, configure, caplog):
    configure("outbox", recorder={}, STRICT=False)
    Recorder.act["recorder"] = lambda event: host.track(None, "echo")
    track("a")

    drain(host.registry.runners, database)

    assert seen("recorder") == ["a"]
    assert "called from within a hook of 'recorder'" in caplog.text


def test_no_secret_reaches_a_reason_or_a_log(database, configure, caplog):
    configure("outbox", configured={"URL": "https://example.com", "TOKEN": "s3cr3t-t0ken"})
    track("a")

    run(database, "configured")

    assert Delivery.objects.get().reason == "RuntimeError: could not post with ********"
    assert "could not post with" in caplog.text
    assert "s3cr3t-t0ken" not in caplog.text
