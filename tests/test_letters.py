"""Dead letters: found, read, sent again, discarded; by the functions and by the commands."""

from __future__ import annotations

import builtins
import datetime as dt
import io
import itertools
import json
import threading
import time
from collections import Counter
from functools import partial

import pytest
from django.core.management import call_command
from django.db import OperationalError, connections, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from pluginhost import PermanentError, Person, RetryableError, host, signals
from pluginhost.delivery import accounts, marks
from pluginhost.delivery.intake import take
from pluginhost.delivery.lanes import claim
from pluginhost.delivery.settling import Outcome, settle
from pluginhost.management.lanes import moment
from pluginhost.models import Chunk, Delivery, Envelope
from pluginhost.operations import letters, steps
from pluginhost.operations.letters import Selection
from pluginhost.workers.worker import drain
from tests.commands import as_json, command, fails
from tests.samples import Recorder
from tests.steps import account, raising, run, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


def refused(database, configure, *names, lane="recorder", why="refused"):
    """Events of these names that became dead letters."""
    configure("outbox", **{lane: {}})
    Recorder.act[lane] = raising(lambda: PermanentError(why))
    track(*names)
    run(database, lane)
    Recorder.act.clear()


@pytest.fixture
def discarded():
    """What ``events_discarded`` told: (lane, n, reason)."""
    heard = []

    def hear(lane, n, reason, **_):
        heard.append((lane, n, reason))

    signals.events_discarded.connect(hear)
    yield heard
    signals.events_discarded.disconnect(hear)


# --- replay ---


def test_what_is_sent_again_arrives_with_its_message_id(database, configure):
    refused(database, configure, "a", "b")
    Delivery.objects.update(kills=3)
    ids = sorted(Delivery.objects.values_list("message_id", flat=True))

    assert letters.replay(Selection(lanes=("recorder",)), database) == 2

    fresh = Delivery.objects.values_list("state", "attempts", "kills", "token", "reason").distinct().get()
    assert fresh == ("waiting", 0, 0, None, "")
    assert account(database, "recorder") == {"accepted": 2, "waiting": 2}
    drain(host.registry.runners, database)
    assert sorted(seen("recorder")) == ["a", "b"]
    assert sorted(event.message_id for event in Recorder.seen["recorder"]) == ids
    assert account(database, "recorder") == {"accepted": 2, "delivered": 2}


def test_a_rate_spaces_what_comes_due_in_each_lane(database, configure):
    configure("outbox", recorder={}, folder={})
    Recorder.act["recorder"] = Recorder.act["folder"] = raising(lambda: PermanentError("no"))
    track(*["x"] * 25)
    drain(host.registry.runners, database)

    assert letters.replay(Selection(), database, rate=10) == 50

    for lane in ("recorder", "folder"):
        rows = Delivery.objects.filter(lane=lane).order_by("id").annotate(wait=F("due_at") - Now())
        waits = [row.wait.total_seconds() for row in rows]
        first = waits[0]
        assert [round(wait - first) for wait in waits] == [0] * 10 + [1] * 10 + [2] * 5
        assert waits[-1] <= 2
    assert account(database, "recorder") == {"accepted": 25, "waiting": 25}


def test_a_rate_below_one_a_second(database, configure):
    refused(database, configure, "a", "b", "c")
    letters.replay(Selection(), database, rate=0.1)
    waits = [row.wait.total_seconds() for row in Delivery.objects.order_by("id").annotate(wait=F("due_at") - Now())]
    assert [round(wait - waits[0]) for wait in waits] == [0, 10, 20]


def test_many_are_sent_again_in_steps_with_one_rate(database, configure, monkeypatch):
    monkeypatch.setattr(steps, "STEP", 4)
    refused(database, configure, *["x"] * 10)
    so_far = []

    assert letters.replay(Selection(), database, rate=5, progress=so_far.append) == 10

    assert so_far == [4, 8, 10]
    waits = [row.wait.total_seconds() for row in Delivery.objects.order_by("id").annotate(wait=F("due_at") - Now())]
    assert [round(wait - waits[0]) for wait in waits] == [0] * 5 + [1] * 5


def test_what_dies_again_meanwhile_is_not_sent_for_ever(database, configure, monkeypatch):
    monkeypatch.setattr(steps, "STEP", 1)
    refused(database, configure, "a", "b")
    Recorder.act["recorder"] = raising(lambda: PermanentError("still no"))

    def deliver(_: int) -> None:
        track("new")
        drain(host.registry.runners, database)

    assert letters.replay(Selection(), database, progress=deliver) == 2
    assert account(database, "recorder") == {"accepted": 4, "dead": 4}


def test_events_of_people_who_were_forgotten_are_not_sent_again(database, configure, discarded):
    configure("outbox", recorder={})
    Recorder.act["recorder"] = raising(lambda: PermanentError("no"))
    host.track(None, "a", user_id="7")
    host.track(None, "b", user_id="8")
    drain(host.registry.runners, database)
    Recorder.act.clear()
    marks.mark(Person(user_ids=("7",)), database)

    assert letters.replay_or_forget(Selection(), database) == (1, 1)

    assert discarded == [("recorder", 1, "of a person who has been forgotten")]
    drain(host.registry.runners, database)
    assert seen("recorder") == ["b"]
    assert account(database, "recorder") == {"accepted": 2, "delivered": 1, "discarded": 1}


def test_a_letter_that_can_not_be_read_may_be_sent_again(database, configure):
    configure("outbox", recorder={}, folder={})
    track("a", "b")
    Envelope.objects.update(payload=b"[{")
    drain(host.registry.runners, database)
    assert Delivery.objects.filter(state="dead").count() == 2

    assert letters.replay(Selection(lanes=("recorder",)), database) == 2
    drain(host.registry.runners, database)

    assert account(database, "recorder") == {"accepted": 2, "dead": 2}
    assert letters.discard(Selection(), database, reason="damaged") == 4
    assert account(database, "folder") == {"accepted": 2, "discarded": 2}
    assert Chunk.objects.count() == 0


# --- discard ---


def test_discarded_letters_are_counted_and_gone(database, configure, discarded):
    refused(database, configure, "a", "b", "c")
    so_far = []

    assert letters.discard(Selection(event="b"), database, reason="a test", progress=so_far.append) == 1

    assert so_far == [1]
    assert discarded == [("recorder", 1, "a test")]
    assert [letter.event_name for letter in letters.read(Delivery.objects.order_by("id"))] == ["a", "c"]
    assert account(database, "recorder") == {"accepted": 3, "dead": 2, "discarded": 1}


def test_a_backlog_is_discarded_wherever_it_lies(database, configure, discarded):
    configure("outbox", recorder={}, folder={})
    track("a", "b")
    track("c")
    take(database)
    track("d")

    assert letters.count(Selection(lanes=("recorder",), state="waiting"), database) == {"recorder": 4}
    assert letters.discard(Selection(lanes=("recorder",), state="waiting"), database, reason="gone") == 4

    assert sum(n for _, n, _ in discarded) == 4
    assert Envelope.objects.get().lanes == "folder"
    assert account(database, "recorder") == {"accepted": 4, "discarded": 4}
    assert account(database, "folder") == {"accepted": 4, "waiting": 4}
    drain(host.registry.runners, database)
    assert (seen("recorder"), sorted(seen("folder"))) == ([], ["a", "b", "c", "d"])
    assert (Chunk.objects.count(), Envelope.objects.count()) == (0, 0)


def test_envelopes_of_a_newer_version_are_discarded_unread(database, configure):
    configure("outbox", recorder={})
    track("a")
    Envelope.objects.update(version=99, payload=b"?")
    assert letters.discard(Selection(lanes=("recorder",), state="waiting"), database, reason="gone") == 1
    assert Envelope.objects.count() == 0
    assert account(database, "recorder") == {"accepted": 1, "discarded": 1}


def test_what_a_worker_holds_is_left_alone(database, configure):
    configure("outbox", recorder={"BATCH_SIZE": 1})
    track("a")
    take(database)
    track("b")
    take(database)
    held = claim(host.registry.runners["recorder"], database)
    waiting = Selection(lanes=("recorder",), state="waiting")

    assert letters.count(waiting, database) == {"recorder": 1}
    assert letters.discard(waiting, database, reason="gone") == 1

    settle(held, Outcome(held.items, 1), host.registry.runners["recorder"].plugin.lane)
    assert account(database, "recorder") == {"accepted": 2, "delivered": 1, "discarded": 1}


def test_what_is_half_finished_is_discarded_for_the_rest(database, configure):
    configure("outbox", recorder={})
    Recorder.act["recorder"] = raising(lambda: RetryableError("away"), "c")
    track("a", "b", "c", "d")
    run(database, "recorder")
    assert letters.discard(Selection(state="waiting"), database, reason="gone") == 2
    assert account(database, "recorder") == {"accepted": 4, "delivered": 2, "discarded": 2}


def test_a_step_that_the_database_refuses_is_tried_again_and_counts_once(database, configure, monkeypatch):
    refused(database, configure, "a", "b")
    add, refusals = accounts.add, [OperationalError("deadlock detected")]

    def refuse(*arguments):
        add(*arguments)
        if refusals:
            raise refusals.pop()

    monkeypatch.setattr(accounts, "add", refuse)
    assert letters.discard(Selection(), database, reason="gone") == 2
    assert account(database, "recorder") == {"accepted": 2, "discarded": 2}


def test_nothing_is_tried_again_within_a_transaction_of_the_site(database, configure, monkeypatch):
    refused(database, configure, "a")
    calls = []

    def refuse(*_):
        calls.append(1)
        raise OperationalError("deadlock detected")

    monkeypatch.setattr(accounts, "add", refuse)
    with pytest.raises(OperationalError), transaction.atomic(database):
        letters.discard(Selection(), database, reason="gone")
    assert calls == [1]
    assert Delivery.objects.count() == 1


def test_many_ids_are_no_trouble(database, configure):
    refused(database, configure, "a", "b")
    ids = (*Delivery.objects.values_list("id", flat=True)[:1], *range(10**6, 10**6 + 40_000))
    assert letters.count(Selection(ids=ids), database) == {"recorder": 1}
    assert letters.discard(Selection(ids=ids), database, reason="gone") == 1


# --- what is selected, and how it reads ---


def test_filters(database, configure):
    refused(database, configure, "a", "A", "b", why="HTTP 500 of a proxy")
    refused(database, configure, "a", lane="folder")
    one = Delivery.objects.filter(event_name="b").get()
    Delivery.objects.filter(pk=one.pk).update(created=Now() - dt.timedelta(days=3))
    day = timezone.now() - dt.timedelta(days=1)

    def names(**fields):
        return Counter(letters.select(Selection(**fields), database).values_list("event_name", flat=True))

    assert names() == Counter("aAba")
    assert names(lanes=("folder",)) == Counter("a")
    assert names(event="a") == Counter("aa")
    assert names(reason="http 500") == Counter("aAb")
    assert names(reason="50%") == Counter()
    assert names(message_ids=(one.message_id,)) == Counter("b")
    assert names(since=day) == Counter("aAa")
    assert names(until=day) == Counter("b")
    assert names(ids=(one.pk,)) == Counter("b")
    assert names(event="a", lanes=("recorder",)) == Counter("a")
    assert names(state="waiting") == Counter()
    assert letters.count(Selection(), database) == {"folder": 1, "recorder": 3}


def test_a_letter_tells_all(database, configure):
    configure("outbox", recorder={})
    Recorder.act["recorder"] = raising(lambda: PermanentError("no"))
    host.track(None, "signed up", {"plan": "é"}, user_id="7")
    drain(host.registry.runners, database)

    (letter,) = letters.read(Delivery.objects.all())

    assert (letter.lane, letter.event_name) == ("recorder", "signed up")
    assert letter.message_id == letter.payload["message_id"]
    assert (letter.reason, letter.attempts, letter.n) == ("PermanentError: no", 1, 1)
    assert letter.payload["properties"] == {"plan": "é"}
    assert letter.payload["user_id"] == "7"


def test_what_can_not_be_read_is_described(database, configure):
    configure("outbox", recorder={})
    for payload in (b'[{"name": 1}]', b"[{" + b"x" * 300, b"[1]"):
        track("a")
        Envelope.objects.update(payload=payload)
        drain(host.registry.runners, database)

    wrong_field, damaged, number = letters.read(Delivery.objects.order_by("id"))

    assert wrong_field.payload == {"name": 1}
    assert damaged.payload.startswith("unreadable payload: ")
    assert damaged.payload.endswith("xxx' and 102 more")
    assert number.payload.startswith("unreadable: ")
    assert number.payload.endswith("1 bytes: b'1'")
    assert [letter.n for letter in (wrong_field, damaged, number)] == [1, 1, 1]


def test_the_events_of_a_chunk_are_read_one_by_one(database, configure):
    configure("outbox", recorder={})
    Recorder.act["recorder"] = raising(lambda: RetryableError("away"), "b")
    track("a", "b", "c")
    run(database, "recorder")
    found = list(letters.read(letters.select(Selection(state="waiting"), database)))
    assert [(letter.event_name, letter.n, len(letter.message_id)) for letter in found] == [("b", 1, 36), ("c", 1, 36)]


@pytest.mark.parametrize(
    ("text", "seconds"), [("2d", 172800), ("3h", 10800), ("30m", 1800), ("45s", 45), ("1w", 604800), ("1.5h", 5400)]
)
def test_durations(text, seconds):
    assert abs((timezone.now() - moment(text)).total_seconds() - seconds) < 5


def test_dates(settings):
    settings.TIME_ZONE = "Europe/Berlin"
    with timezone.override("Europe/Berlin"):
        utc = [moment(text).astimezone(dt.UTC).isoformat() for text in ("2026-03-31", "2026-03-31 14:30")]
    assert utc == ["2026-03-30T22:00:00+00:00", "2026-03-31T12:30:00+00:00"]
    assert moment("2026-03-31T14:30:00+09:00").astimezone(dt.UTC).isoformat() == "2026-03-31T05:30:00+00:00"
    settings.USE_TZ = False
    assert moment("2026-03-31T14:30").isoformat() == "2026-03-31T14:30:00"


@pytest.mark.parametrize("text", ["yesterday", "2026-02-31", "2026-02-31T10:00", "2x", "-2d", "99999999999d", ""])
def test_what_is_no_date(text, configure, capsys):
    configure("outbox", recorder={})
    with pytest.raises(SystemExit):
        call_command("pluginhost", "dead", "--since", text)
    assert "argument --since: " in capsys.readouterr().err


# --- the commands ---


def test_dead_lists_the_newest_first(database, configure):
    refused(database, configure, "a", "b", why="no such goal")
    text = command("dead")
    lines = text.splitlines()
    assert lines[0].startswith("recorder  ")
    assert lines[0].endswith("  b")
    assert "attempts 1: PermanentError: no such goal" in lines[1]
    assert lines[2].endswith("  a")
    assert lines[-1] == "2 events (recorder 2)"
    assert command("dead", "--limit", "1").splitlines()[-1] == "The newest 1 are shown: see --limit."
    assert command("dead", "--event", "c") == "0 events\n"
    assert '"name": "a"' in command("dead", "--event", "a", "--payload")


def test_dead_as_json(database, configure):
    refused(database, configure, "a", "b")
    report = as_json("dead", "--limit", "1", "--payload")
    assert (report["total"], report["lanes"]) == (2, {"recorder": 2})
    (letter,) = report["letters"]
    assert (letter["event_name"], letter["payload"]["name"], letter["lane"]) == ("b", "b", "recorder")
    assert dt.datetime.fromisoformat(letter["created"]) <= dt.datetime.fromisoformat(letter["died"])
    assert "payload" not in as_json("dead")["letters"][0]
    message_id = letter["message_id"].upper()
    assert as_json("dead", "--message-id", message_id, "--message-id", "x")["total"] == 1


def test_replay(database, configure):
    refused(database, configure, "a", "b")
    assert fails("replay") == ("", "which ones? Give a filter such as --lane, or --all to replay all.")
    assert command("replay", "--all", "--dry-run") == "would replay 2 events (recorder 2)\n"
    assert account(database, "recorder")["dead"] == 2
    assert command("replay", "--event", "a") == "replayed 1 event; they wait in their lanes\n"
    assert account(database, "recorder") == {"accepted": 2, "waiting": 1, "dead": 1}
    assert as_json("replay", "--all", "--rate", "5") == {
        "dry_run": False, "selected": 1, "lanes": {"recorder": 1}, "replayed": 1, "forgotten": 0,
    }  # fmt: skip
    drain(host.registry.runners, database)
    assert account(database, "recorder") == {"accepted": 2, "delivered": 2}


@pytest.mark.parametrize("rate", ["0", "-1", "many", "nan", "inf", "1e-12"])
def test_a_rate_that_is_none(configure, rate, capsys):
    configure("outbox", recorder={})
    with pytest.raises(SystemExit):
        call_command("pluginhost", "replay", "--all", "--rate", rate)
    assert "argument --rate: " in capsys.readouterr().err


def test_replay_says_what_will_wait(database, configure):
    refused(database, configure, "a")
    command("pause", "recorder")
    assert "recorder is paused: its events wait until it is resumed\n" in command("replay", "--all")
    letters.discard(Selection(state="waiting"), database, reason="again")
    refused(database, configure, "b", lane="folder")
    configure("outbox", recorder={})
    assert "folder is not enabled: its events wait until it is\n" in command("replay", "--lane", "folder")


def test_progress_goes_to_stderr(database, configure, monkeypatch):
    monkeypatch.setattr(steps, "STEP", 2)
    refused(database, configure, "a", "b", "c")
    out, err = io.StringIO(), io.StringIO()
    call_command("pluginhost", "replay", "--all", "--json", stdout=out, stderr=err)
    assert err.getvalue() == "replayed 2 of 3 events\n"
    assert json.loads(out.getvalue())["replayed"] == 3


def test_discard(database, configure, monkeypatch):
    refused(database, configure, "a", "b", "c")
    answers, asked = [], []

    def answer(question):
        asked.append(question)
        if not answers:
            raise EOFError
        return answers.pop()

    monkeypatch.setattr(builtins, "input", answer)
    assert "--all to discard all" in fails("discard")[1]
    assert command("discard", "--all", "--dry-run") == "would discard 3 events (recorder 3)\n"
    assert fails("discard", "--all")[1] == "nobody is there to confirm it: give --no-input."
    answers.append("n")
    assert fails("discard", "--all")[1] == "nothing was discarded."
    assert account(database, "recorder") == {"accepted": 3, "dead": 3}
    answers.append("y")
    assert command("discard", "--event", "a") == "discarded 1 event\n"
    assert asked[-1] == "Discard 1 event (recorder 1) that are dead, for good? [y/N] "
    asked.clear()
    assert as_json("discard", "--all", "--no-input")["discarded"] == 2
    assert command("discard", "--all") == "discarded 0 events\n"
    assert asked == []
    assert account(database, "recorder") == {"accepted": 3, "discarded": 3}


def test_the_question_is_not_on_stdout(configure, monkeypatch, capsys):
    refused("default", configure, "a")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    call_command("pluginhost", "discard", "--all", "--json")
    printed = capsys.readouterr()
    assert json.loads(printed.out)["discarded"] == 1
    assert printed.err.startswith("Discard 1 event (recorder 1) that are dead, for good? [y/N] ")


@pytest.mark.parametrize("dead_before", [0, 1])
def test_what_dies_while_somebody_is_asked_is_not_discarded(database, configure, monkeypatch, dead_before):
    refused(database, configure, *["before"] * dead_before)
    count = letters.count

    def meanwhile(*args):
        found = count(*args)
        refused(database, configure, "meanwhile")
        return found

    monkeypatch.setattr(letters, "count", meanwhile)
    monkeypatch.setattr(builtins, "input", lambda _: "y")
    assert as_json("discard", "--all")["discarded"] == dead_before
    assert Delivery.objects.get().event_name == "meanwhile"


def test_a_lane_in_capitals_is_another_lane(database, configure):
    """None that the settings can name, but a broker may carry it."""
    configure("outbox", recorder={})
    track("a")
    Envelope.objects.update(lanes="RECORDER,folder")
    assert letters.discard(Selection(lanes=("recorder",), state="waiting"), database, reason="gone") == 0
    assert Envelope.objects.get().lanes == "RECORDER,folder"


def test_the_backlog_of_a_removed_alias_is_discarded(database, configure):
    configure("outbox", recorder={})
    track("a", "b")
    take(database)
    track("c")
    configure("outbox", folder={})
    assert "--lane" in fails("discard", "--waiting", "--all", "--no-input")[1]
    assert command("discard", "--waiting", "--lane", "recorder", "--dry-run") == "would discard 3 events (recorder 3)\n"
    assert command("discard", "--waiting", "--lane", "recorder", "--no-input") == "discarded 3 events\n"
    assert account(database, "recorder") == {"accepted": 3, "discarded": 3}


@pytest.mark.parametrize(
    "arguments", [("dead",), ("replay",), ("discard", "--no-input"), ("discard", "--waiting", "--no-input")]
)
def test_a_lane_that_there_is_not(configure, arguments):
    configure("outbox", recorder={})
    _, error = fails(*arguments, "--lane", "recoder")
    assert error == "there is no lane 'recoder'. Did you mean 'recorder'? The lanes are: recorder."


def test_another_database(database, configure):
    refused(database, configure, "a")
    other = "postgres" if database == "default" else "default"
    assert as_json("dead", "--database", database)["total"] == 1
    assert as_json("dead", "--database", other)["total"] == 0
    assert "there is no database 'nowhere'" in fails("dead", "--database", "nowhere")[1]


def test_a_large_replay_goes_step_by_step(database, configure):
    refused(database, configure, "a")
    row = Delivery.objects.get()
    Delivery.objects.bulk_create(
        [
            Delivery(lane=row.lane, payload=row.payload, version=row.version, n=1, state="dead", message_id=str(number))
            for number in range(1200)
        ],
        batch_size=200,
    )
    so_far = []
    assert letters.replay(Selection(), database, progress=so_far.append) == 1201
    assert so_far == [500, 1000, 1201]
    assert Delivery.objects.filter(state="waiting").count() == 1201


def test_workers_go_on_beside_it_and_nothing_is_delivered_twice(any_database, configure, monkeypatch):
    monkeypatch.setattr(steps, "STEP", 3)
    configure("outbox", recorder={"RETRY_DELAY": 0.01}, folder={"RETRY_DELAY": 0.01})
    calls = Counter()

    def act(lane, argument):
        """Every third call of a lane is refused, every fourth is to be tried again."""
        calls[lane] += 1
        if calls[lane] % 3 == 0:
            raise PermanentError("no")
        if calls[lane] % 4 == 0:
            raise RetryableError("later")

    Recorder.act |= {lane: partial(act, lane) for lane in ("recorder", "folder")}
    stop = threading.Event()

    def work():
        try:
            while not stop.is_set():
                track("a", "b", "c")
                drain(host.registry.runners, any_database)
        finally:
            connections.close_all()

    worker = threading.Thread(target=work)
    worker.start()
    counted = Counter()
    try:
        end = time.monotonic() + 60
        for turn in itertools.takewhile(lambda _: time.monotonic() < end, itertools.count()):
            letters.replay(Selection(), any_database, rate=1000 if turn % 2 else None)
            if turn % 3 == 0:
                counted["recorder"] += letters.discard(Selection(lanes=("recorder",)), any_database, reason="a test")
            elif turn % 10 == 1:
                backlog = Selection(lanes=("folder",), state="waiting")
                counted["folder"] += letters.discard(backlog, any_database, reason="a test")
            if min(counted["recorder"], counted["folder"], len(seen("recorder")) - 20, len(seen("folder")) - 20) > 0:
                break
    finally:
        stop.set()
        worker.join()

    for lane in ("recorder", "folder"):
        found = account(any_database, lane)
        assert found["discarded"] == counted[lane] > 0
        ids = [event.message_id for event in Recorder.seen[lane]]
        assert found["delivered"] == len(ids) == len(set(ids)) > 20


def test_options_may_stand_before_the_subcommand(database, configure):
    refused(database, configure, "a")
    after = command("dead", "--json", "--database", database)
    assert command("--json", "--database", database, "dead") == after
    assert json.loads(after)["total"] == 1


HOSTILE = "/sh\x1b[2J\x1b]0;mine\x07op\x9b31m\nmongo  0000  delivered"


def test_a_visitors_text_commands_no_terminal(database, configure):
    refused(database, configure, HOSTILE, why=f"no {HOSTILE}")
    message_id = Delivery.objects.get().message_id
    for printed in (command("dead", "--payload"), command("explain", message_id)):
        assert [sign for sign in printed if not sign.isprintable() and sign != "\n"] == []
        assert "\\x1b[2J" in printed
        assert "\nmongo  0000" not in printed


@pytest.mark.parametrize("limit", ["-3", "", "two", "1.5"])
def test_a_limit_is_a_number_from_0_on(limit, configure, capsys):
    configure("outbox", recorder={})
    with pytest.raises(SystemExit):
        command("dead", f"--limit={limit}")
    assert "is no number from 0 on" in capsys.readouterr().err
