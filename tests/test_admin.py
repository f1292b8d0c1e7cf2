"""The admin: who sees what, who may do what, and what is done; a visitor's text is data wherever it is shown."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connections
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import timezone

from pluginhost import PermanentError, RetryableError, Subject, UncertainError, host
from pluginhost.admin import DeadLetterAdmin, LaneAdmin, reasons, show
from pluginhost.delivery.envelopes import join
from pluginhost.delivery.intake import take
from pluginhost.delivery.work import DEADLY, INTERRUPTED
from pluginhost.events import Context, Event, encode, new_message_id
from pluginhost.models import Account, Chunk, DeadLetter, Delivery, Lane
from pluginhost.operations import letters, pausing
from tests.samples import Recorder
from tests.steps import account, raising, run, track

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.django_db(databases="__all__")

LANES = "/admin/pluginhost/lane/"
LETTERS = "/admin/pluginhost/deadletter/"
HOSTILE = ["</pre><script>alert(1)</script>", "a\u2028b", "{{7*7}}", "🛒", "\" onmouseover='x'", "%s %(a)s"]


@pytest.fixture
def here() -> str:
    """The database of a test that need not run on each."""
    return "default"


@pytest.fixture(autouse=True)
def site(configure: Callable[..., None]) -> None:
    ContentType.objects.clear_cache()
    configure("outbox", recorder={}, under_score={"PLUGIN": "recorder"})


@pytest.fixture
def root(request: pytest.FixtureRequest, site: None, client: Client) -> Client:
    if "database" in request.fixturenames:
        request.getfixturevalue("database")  # before the user is made
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.fixture
def known_to(site: None, client: Client) -> Callable[..., Client]:
    """Log in somebody who may do these things and no others."""

    def log_in(*codenames: str) -> Client:
        create_permissions(apps.get_app_config("pluginhost"), verbosity=0)  # other tests have emptied the tables
        user = User.objects.create_user("ada", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        assert user.user_permissions.count() == len(codenames)
        client.force_login(user)
        return client

    return log_in


def refused(database: str, *names: str, lane: str = "recorder") -> None:
    """Dead letters of one lane; the other has delivered the same events."""
    Recorder.act[lane] = raising(lambda: PermanentError("no such goal"), *names)
    track(*names)
    for each in ("recorder", "under_score"):
        run(database, each)
    del Recorder.act[lane]


def letter(lane: str = "recorder", **values: Any) -> DeadLetter:
    """A dead letter that was accepted, as the accounts know it."""
    row = {"version": 1, "n": 1, "state": "dead", "attempts": 1, "reason": "PermanentError: no", **values}
    made = DeadLetter.objects.create(lane=lane, **row)
    accept(lane, made.n)
    return made


def accept(lane: str, n: int) -> None:
    kept, _ = Account.objects.get_or_create(lane=lane, day=dt.date(2026, 1, 1), outcome="accepted")
    kept.n += n
    kept.save()


def event(**values: Any) -> Event:
    given = {"type": "track", "name": "e", "message_id": new_message_id(), "timestamp": dt.datetime.now(dt.UTC)}
    return Event(**{**given, **values})


def many(number: int, lane: str = "recorder") -> None:
    payload = join([encode(event())])
    rows = [
        Delivery(lane=lane, version=1, n=1, state="dead", reason="RetryableError: away", payload=payload)
        for _ in range(number)
    ]
    Delivery.objects.bulk_create(rows)
    accept(lane, number)


def change(row: DeadLetter | str) -> str:
    """The path of a letter's page, or a lane's."""
    return f"{LETTERS}{row.pk}/change/" if isinstance(row, DeadLetter) else f"{LANES}{row.replace('_', '_5F')}/change/"


def act(client: Client, address: str, action: str, *selected: Any, **more: Any) -> Any:
    return client.post(address, {"action": action, "_selected_action": selected, **more}, follow=True)


def told(page: Any) -> list[str]:
    return [str(message) for message in page.context["messages"]]


def html(page: Any) -> str:
    assert page.status_code == 200
    return str(page.content.decode())


def words(page: Any) -> str:
    """What there is to read."""
    return " ".join(re.sub(r"<[^>]*>", " ", html(page)).split())


def listed(client: Client, **query: Any) -> list[str]:
    page = client.get(LETTERS, query)
    assert page.status_code == 200, page
    return sorted(str(each) for each in page.context["cl"].result_list)


def histories() -> list[tuple[str, str, str]]:
    return [
        (entry.user.get_username(), str(entry.object_id), entry.change_message)
        for entry in LogEntry.objects.order_by("pk")
    ]


def everything() -> list[Any]:
    """What an action could have changed."""
    return [
        list(Delivery.objects.order_by("pk").values()),
        list(Lane.objects.order_by("pk").values()),
        list(Account.objects.order_by("pk").values()),
        list(LogEntry.objects.order_by("pk").values()),
    ]


# --- the lanes ---


def row_of(page: Any, lane: str) -> list[str]:
    """The cells of a lane in the overview."""
    (found,) = [row for row in re.findall(r"<tr>.*?</tr>", html(page), re.DOTALL) if f">{lane}</a></th>" in row]
    cells = re.findall(r"<t[dh]\b[^>]*>(.*?)</t[dh]>", found, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in cells]


def test_the_overview_says_how_each_lane_is(root, database):
    refused(database, "a", "b")
    track("c")
    page = root.get(LANES)
    assert row_of(page, "recorder") == ["", "recorder", "running", "1", "2", "0", "0 minutes", *"3000"]
    assert row_of(page, "under_score")[2:] == ["running", "1", "0", "0", "0 minutes", *"3200"]
    assert f'href="{LETTERS}?lane=recorder"' in html(page)
    assert f'href="{LETTERS}?lane=under_score"' not in html(page)


def test_the_overview_says_what_keeps_a_lane(root, here):
    refused(here, "a")
    pausing.pause("recorder", here, "until <b>Monday</b>")
    Lane.objects.create(name="under_score", trouble="a hook hung", trouble_at=timezone.now())
    letter("gone")
    accept("lost", 1)
    page = root.get(LANES)
    assert re.fullmatch(r"paused since .*: until &lt;b&gt;Monday&lt;/b&gt;", row_of(page, "recorder")[2])
    assert re.fullmatch(r"trouble .*: a hook hung", row_of(page, "under_score")[2])
    assert row_of(page, "gone")[2] == "not enabled"
    assert row_of(page, "lost")[2] == "not enabled out of balance"
    assert "No enabled alias has this name." in words(root.get(change("gone")))


def test_a_lane_that_nobody_serves_is_held_up(root, database):
    track("a")
    assert row_of(root.get(LANES), "recorder")[2] == "running"
    take(database)
    Delivery.objects.filter(lane="recorder").update(due_at=Now() - dt.timedelta(minutes=5))
    Delivery.objects.filter(lane="under_score").update(due_at=Now() + dt.timedelta(minutes=5))
    page = root.get(LANES)
    assert row_of(page, "recorder")[2].startswith("held up since ")
    assert row_of(page, "under_score")[2] == "running"
    pausing.pause("recorder", database)
    assert row_of(root.get(LANES), "recorder")[2].startswith("paused since ")


def test_a_lane_has_a_page_and_a_history(root, here):
    refused(here, "a")
    page = words(root.get(change("under_score")))
    assert "State: running" in page
    assert "Delivered: 1" in page
    assert "Replay dead letters" not in page
    page = words(root.get(change("recorder")))
    assert "Dead: 1" in page
    assert "Replay dead letters…" in page
    assert "Resume" not in page
    act(root, LANES, "pause", "recorder", post="yes", reason="they move")
    assert "Paused: they move" in words(root.get(f"{LANES}recorder/history/"))
    assert root.get(change("nobody")).status_code == 302


def test_no_lane_at_all(root, configure):
    configure("outbox")
    assert "There are no lanes" in words(root.get(LANES))


# --- what is done to lanes ---


def test_pause_and_resume(root, database):
    track("a")
    page = act(root, LANES, "pause", "recorder", "under_score")
    assert 'name="reason"' in html(page)
    assert pausing.paused(database) == {}

    page = act(root, LANES, "pause", "recorder", "under_score", post="yes", reason="they move")
    assert told(page) == ["2 lanes are paused."]
    assert {name: row.paused_because for name, row in pausing.paused(database).items()} == {
        "recorder": "they move",
        "under_score": "they move",
    }
    assert run(database, "recorder") is None

    page = act(root, LANES, "resume", "recorder")
    assert told(page) == ["1 lane goes on."]
    assert run(database, "recorder") is not None
    assert histories() == [
        ("root", "recorder", "Paused: they move"),
        ("root", "under_score", "Paused: they move"),
        ("root", "recorder", "Resumed."),
    ]


def test_a_reason_that_is_too_long_is_asked_for_again(root, here):
    page = act(root, LANES, "pause", "recorder", post="yes", reason="x" * 201)
    assert "at most 200 characters" in words(page)
    assert pausing.paused(here) == {}


def test_replay_all_of_a_lane(root, database):
    refused(database, "a", "b")
    refused(database, "c", lane="under_score")
    page = act(root, LANES, "replay", "recorder", "under_score")
    assert "Replay 3 events" in words(page)
    page = act(root, LANES, "replay", "recorder", post="yes", rate="")
    assert told(page) == ["2 events wait again."]
    assert histories() == [("root", "recorder", "Replayed 2 dead letters.")]
    while run(database, "recorder"):
        pass
    assert account(database, "recorder") == {"accepted": 3, "delivered": 3}
    assert account(database, "under_score")["dead"] == 1


def test_replay_with_a_rate(root, database):
    refused(database, *"abcd")
    act(root, LANES, "replay", "recorder", post="yes", rate="0.5")
    due = list(Delivery.objects.order_by("due_at").values_list("due_at", flat=True))
    assert [round((time - due[0]).total_seconds()) for time in due] == [0, 2, 4, 6]


@pytest.mark.parametrize("rate", ["0", "-1", "many", "nan", "inf"])
def test_a_rate_that_is_none_replays_nothing(root, here, rate):
    refused(here, "a")
    before = everything()
    assert 'class="errorlist"' in html(act(root, LANES, "replay", "recorder", post="yes", rate=rate))
    assert everything() == before


def test_discard_the_dead_letters_of_a_lane(root, database):
    refused(database, "a", "b")
    page = words(act(root, LANES, "discard_dead", "recorder", "under_score"))
    assert "These events are deleted for good" in page
    assert "Discard 2 events" in page
    assert account(database, "recorder")["dead"] == 2
    page = act(root, LANES, "discard_dead", "recorder", post="yes")
    assert told(page) == ["2 events were discarded."]
    assert account(database, "recorder") == {"accepted": 2, "discarded": 2}
    assert histories() == [("root", "recorder", "Discarded 2 dead letters.")]


def test_discard_what_waits(root, database):
    refused(database, "dead")
    track("a", "b")
    take(database)
    track("c")
    page = words(act(root, LANES, "discard_waiting", "recorder"))
    assert "Discard 3 events" in page
    act(root, LANES, "discard_waiting", "recorder", post="yes")
    assert account(database, "recorder") == {"accepted": 4, "dead": 1, "discarded": 3}
    assert account(database, "under_score") == {"accepted": 4, "delivered": 1, "waiting": 3}
    assert histories() == [("root", "recorder", "Discarded 3 waiting events.")]


@pytest.mark.parametrize("action", ["replay", "discard_dead", "discard_waiting"])
def test_where_there_is_nothing_nothing_is_asked(root, action):
    page = act(root, LANES, action, "recorder")
    assert told(page) == ["There are no such events."]


@pytest.mark.parametrize("lanes", [["nobody"], ["' OR 1=1"], ["\0"], []], ids=["unknown", "hostile", "nul", "none"])
def test_an_unknown_lane_changes_nothing(root, here, lanes):
    refused(here, "a")
    before = everything()
    for action in ("pause", "resume", "replay", "discard_dead", "discard_waiting"):
        page = act(root, LANES, action, *lanes, post="yes", reason="", rate="")
        assert told(page) == ["No lane is selected, or there is none of that name."]
    assert everything() == before


def test_an_unknown_action_changes_nothing(root, here):
    refused(here, "a")
    before = everything()
    for action in ("", "delete_selected", "changelist_view"):
        assert told(act(root, LANES, action, "recorder", post="yes")) == ["No action selected."]
    assert everything() == before


# --- dead letters ---


def test_the_list_is_filtered_and_searched(root, database):
    refused(database, "signed up", "paid")
    refused(database, "paid", lane="under_score")
    kept = letter(event_name="old", reason="RetryableError: HTTP 503", attempts=100)
    Delivery.objects.filter(pk=kept.pk).update(created=Now() - dt.timedelta(days=40))
    assert listed(root) == ["old", "paid", "paid", "signed up"]
    assert listed(root, lane="under_score") == ["paid"]
    assert listed(root, kind="gave-up") == ["old"]
    assert listed(root, kind="refused") == ["paid", "paid", "signed up"]
    assert listed(root, q="HTTP 503") == ["old"]  # digits alone may be those of an id
    assert listed(root, q="signed") == ["signed up"]
    assert listed(root, q=DeadLetter.objects.get(event_name="signed up").message_id) == ["signed up"]
    week = (timezone.now() - dt.timedelta(days=7)).isoformat()
    assert listed(root, created__gte=week) == ["paid", "paid", "signed up"]
    for strange in ({"lane": "nobody"}, {"lane": "\0"}, {"q": "nobody"}):
        assert listed(root, **strange) == []
    assert len(listed(root, kind="nobody")) == 4


def test_only_dead_letters_are_listed(root, here):
    track("a")
    take(here)
    assert listed(root) == []
    waiting = Delivery.objects.filter(lane="recorder").get()
    assert root.get(f"{LETTERS}{waiting.pk}/change/").status_code == 302
    act(root, LETTERS, "discard", waiting.pk, post="yes")
    assert Delivery.objects.filter(pk=waiting.pk).exists()


@pytest.mark.parametrize(
    ("reason", "attempts", "shown", "kind"),
    [
        ("PermanentError: no", 1, "refused for good", "refused"),
        ("UncertainError: timed out", 1, "fate unknown", "uncertain"),
        (INTERRUPTED.reason, 1, "fate unknown", "uncertain"),
        (DEADLY.reason, 6, "its worker died", "killed"),
        ("unreadable payload: JSON is malformed", 1, "unreadable", "unreadable"),
        ("unknown version 9", 1, "unreadable", "unreadable"),
        ("RetryableError: HTTP 503", 100, "gave up after 100 attempts", "gave-up"),
        ("RetryableError: HTTP 503", 1, "gave up after 1 attempt", "gave-up"),
        ("ValueError: no such key", 100, "other failure", "other"),
        ("", 1, "other failure", "other"),
    ],
)
def test_reasons_in_words(root, reason, attempts, shown, kind):
    row = letter(event_name="mine", reason=reason, attempts=attempts, payload=join([encode(event())]))
    letter(event_name="other", reason="Other" if kind != "other" else "PermanentError")
    assert shown in words(root.get(LETTERS))
    page = words(root.get(change(row)))
    assert f"Why: {shown} What to do: {reasons.kind_of(row).hint} Reason: {reason or '-'}" in page
    assert listed(root, kind=kind) == ["mine"]


@pytest.mark.parametrize("make", [PermanentError, RetryableError, UncertainError])
def test_the_kinds_are_those_of_what_plugins_raise(root, here, configure, make):
    configure("outbox", recorder={"MAX_ATTEMPTS": 1, "ON_UNCERTAIN": "dead"})
    Recorder.dedupes = False
    try:
        Recorder.act["recorder"] = raising(lambda: make("why"))
        track("a")
        run(here, "recorder")
    finally:
        Recorder.dedupes = True
    shown = {"PermanentError": "refused for good", "UncertainError": "fate unknown"}
    assert shown.get(make.__name__, "gave up after 1 attempt") in words(root.get(LETTERS))


def test_the_page_shows_what_the_event_has_and_nothing_else(root, here):
    properties = {"plan": "pro", "items": [1, 2]}
    context = Context(ip="192.0.2.0", url="https://example.com/a", user_agent="Mozilla", route="shop:product")
    made = event(
        name="signed up",
        properties=properties,
        user_id="42",
        value=0,
        subject=Subject(model="shop.Order", pk="7"),
        context=context,
        visitor_ids={"piwik": "abc"},
    )
    row = letter(payload=join([encode(made)]), event_name="signed up", message_id=made.message_id)
    page = root.get(change(row))
    assert "{\n  &quot;items&quot;: [\n    1,\n    2\n  ],\n  &quot;plan&quot;: &quot;pro&quot;\n}" in html(page)
    text = words(page)
    for shown in ("User id: 42", "Value: 0", "Subject: shop.Order 7", "Address: 192.0.2.0", "Route: shop:product"):
        assert shown in text
    for shown in ("URL: https://example.com/a", "User agent: Mozilla", f"Message id: {made.message_id}", "abc"):
        assert shown in text
    for absent in ("Anonymous id", "Referrer", "Previous id", "What is stored", "Save"):
        assert absent not in text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_data_on_all_pages(root, here, text):
    made = event(
        name=text,
        properties={text: [text, {"n": {text: text}}]},
        user_id=text,
        anonymous_id=text,
        subject=Subject(model=text, pk=text),
        context=Context(user_agent=text, url=text, path=text, referrer=text, route=text, language=text, ip=text),
        plugins={text: {text: text}},
        visitor_ids={text: text},
    )
    row = letter(payload=join([encode(made)]), event_name=text, reason=f"PermanentError: {text}")
    torn = letter(payload=encode(made), reason=f"unreadable: {text}")
    pausing.pause("recorder", here, text)
    Lane.objects.create(name="under_score", trouble=text)
    pages = [root.get(address) for address in (LANES, LETTERS, change(row), change(torn), change("recorder"))]
    pages.append(act(root, LETTERS, "discard", row.pk))
    act(root, LETTERS, "replay", row.pk)
    pages.append(root.get(f"{LANES}recorder/history/"))
    pages.append(root.get("/admin/"))
    for page in pages:
        assert "<script>alert" not in html(page)
        assert ">49<" not in html(page)
        assert not re.search(r"<[^>]* onmouseover='x'", html(page))
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#x27;")
    assert html(pages[2]).count(escaped.replace('"', "&quot;")) >= 8


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00\xff\xfe</pre><script>alert(1)</script>",
        b'[{"type":"track","a":"</pre><script>alert(1)</script>"}]',
        b"[" * 9_000,
        b"<script>" * 200_000,
        b"[]",
    ],
    ids=["empty", "bytes", "no event", "deep", "long", "none"],
)
@pytest.mark.parametrize("in_chunk", [False, True], ids=["own", "chunk"])
def test_what_cannot_be_read_is_shown_as_what_it_is(root, here, payload, in_chunk):
    chunk = Chunk.objects.create(n=500, payload=payload) if in_chunk else None
    own = None if in_chunk else payload
    row = letter(payload=own, chunk=chunk, n=500, reason="unreadable payload: JSON is malformed")
    assert "500 unreadable events" in words(root.get(LETTERS))
    page = html(root.get(change(row)))
    assert "<script>" not in page.partition("What is stored")[2].partition("</fieldset>")[0]
    assert len(page) < 200_000
    if payload[:1] == b"\x00":
        assert "\\xff\\xfe" in page
    if payload[:2] == b"[{":
        assert "&quot;a&quot;: &quot;&lt;/pre&gt;" in page


def test_a_payload_that_is_gone(root):
    row = letter(chunk_id=12345, n=3, reason="unreadable payload: Input data was truncated")
    assert "3 unreadable events" in words(root.get(change(row)))


def test_the_list_has_pages_and_a_bounded_number_of_queries(root, database):
    def queries(address: str) -> int:
        with CaptureQueriesContext(connections[database]) as log:
            assert root.get(address).status_code == 200
        return len(log)

    few = letter(payload=join([encode(event())]))
    addresses = (LETTERS, LANES, change(few), change("recorder"))
    for address in addresses:  # content types are looked up once a process
        queries(address)
    before = {address: queries(address) for address in addresses}
    many(250)
    pausing.pause("recorder", database)
    assert {address: queries(address) for address in before} == before
    assert max(before.values()) <= 12
    assert len(root.get(LETTERS).context["cl"].result_list) == 100
    assert len(root.get(LETTERS, {"p": 3}).context["cl"].result_list) == 51


# --- what is done to dead letters ---


def test_replay_selected_letters(root, database):
    refused(database, "a", "b", "c")
    ids = list(DeadLetter.objects.filter(event_name__in=["a", "b"]).values_list("pk", flat=True))
    page = act(root, LETTERS, "replay", *ids)
    assert told(page) == ["2 events wait again."]
    assert histories() == [("root", "recorder", "Replayed 2 dead letters.")]
    while run(database, "recorder"):
        pass
    assert account(database, "recorder") == {"accepted": 3, "delivered": 2, "dead": 1}


def test_a_single_letter_is_named_in_the_history(root, here):
    refused(here, "a", "b")
    first, second = DeadLetter.objects.order_by("event_name")
    page = words(root.get(change(first)))
    assert "Replay Discard… Close" in page
    act(root, LETTERS, "replay", first.pk)
    act(root, LETTERS, "discard", second.pk, post="yes")
    assert [message for _, _, message in histories()] == [
        f"Replayed 1 dead letter: a {first.message_id}.",
        f"Discarded 1 dead letter: b {second.message_id}.",
    ]


def test_discard_selected_letters_asks_first(root, database):
    refused(database, "a", "b", "c")
    ids = list(DeadLetter.objects.filter(event_name__in=["a", "b"]).values_list("pk", flat=True))
    before = everything()
    page = act(root, LETTERS, "discard", *ids)
    assert "Discard 2 events" in words(page)
    assert everything() == before
    page = act(root, LETTERS, "discard", *ids, post="yes")
    assert told(page) == ["2 events were discarded."]
    assert account(database, "recorder") == {"accepted": 3, "dead": 1, "discarded": 2}


def test_letters_that_are_gone_meanwhile_do_not_stand_for_all(root, here):
    refused(here, "a", "b")
    gone, left = DeadLetter.objects.order_by("event_name")
    act(root, LETTERS, "discard", gone.pk, post="yes")
    before = everything()
    for action in ("discard", "replay"):
        page = act(root, LETTERS, action, gone.pk, post="yes")
        assert told(page) == ["These dead letters have been replayed or discarded meanwhile."]
    assert everything() == before
    assert list(DeadLetter.objects.all()) == [left]


def fields_of(page: Any) -> dict[str, Any]:
    """What the form of a page that asks sends."""
    form = html(page).partition('<form method="post" novalidate>')[2].partition("</form>")[0]
    found: dict[str, Any] = {}
    for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form):
        found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize(("action", "outcome"), [("replay", "waiting"), ("discard", "discarded")])
def test_across_pages_all_that_the_filters_leave_are_meant(root, database, action, outcome):
    many(1_203)
    many(7, "under_score")
    page_of_ids = [each.pk for each in root.get(LETTERS, {"lane": "recorder"}).context["cl"].result_list]
    address = f"{LETTERS}?lane=recorder"
    before = everything()
    page = act(root, address, action, *page_of_ids, select_across="1", index="0")
    assert "1203 events" in words(page)
    assert everything() == before
    sent = fields_of(page)
    assert len(sent["_selected_action"]) == 100
    page = root.post(address, {**sent, "rate": ""}, follow=True)
    assert told(page)[0].startswith("1203 events ")
    assert account(database, "recorder") == {"accepted": 1203, outcome: 1203}
    assert account(database, "under_score") == {"accepted": 7, "dead": 7}
    assert LogEntry.objects.count() == 1


@pytest.mark.parametrize("action", ["replay", "discard_dead"])
def test_what_dies_while_the_page_of_a_lane_asks_is_not_meant(root, database, action):
    many(3)
    sent = fields_of(act(root, LANES, action, "recorder"))
    late = letter(reason="late", due_at=Now() + dt.timedelta(seconds=1))
    page = root.post(LANES, {**sent, "rate": ""}, follow=True)
    assert told(page)[0].startswith("3 events ")
    assert list(DeadLetter.objects.all()) == [late]
    assert [message.split()[1] for _, _, message in histories()] == ["3"]


@pytest.mark.parametrize("action", ["replay", "discard"])
def test_what_dies_while_the_list_asks_is_not_meant(root, database, action):
    many(101)
    sent = fields_of(act(root, LETTERS, action, "1", select_across="1"))
    late = letter(reason="late", due_at=Now() + dt.timedelta(seconds=1))
    page = root.post(LETTERS, {**sent, "rate": ""}, follow=True)
    assert told(page)[0].startswith("101 events ")
    assert list(DeadLetter.objects.all()) == [late]


@pytest.mark.parametrize(("address", "action"), [(LANES, "discard_dead"), (LANES, "replay"), (LETTERS, "discard")])
@pytest.mark.parametrize("word", ["", "2099-01-01T00:00:00"])
def test_a_bound_that_no_page_has_given_changes_nothing(root, here, address, action, word):
    row = letter()
    before = everything()
    act(root, address, action, row.lane if address == LANES else row.pk, post="yes", rate="", died_before=word)
    assert everything() == before


def test_the_history_says_what_was_done(root, here, monkeypatch):
    refused(here, "a", "b")
    first = DeadLetter.objects.order_by("pk")[0]
    count = letters.count

    def somebody_is_faster(*args: Any) -> dict[str, int]:
        found = count(*args)
        DeadLetter.objects.filter(pk=first.pk).delete()
        return found

    monkeypatch.setattr(letters, "count", somebody_is_faster)
    act(root, LANES, "discard_dead", "recorder", post="yes")
    assert histories() == [("root", "recorder", "Discarded 1 dead letter.")]


def test_a_rate_for_many(root, here):
    many(101)
    page = act(root, LETTERS, "replay", "1", select_across="1")
    sent = {**fields_of(page), "rate": "10"}
    assert 'class="errorlist"' in html(root.post(LETTERS, {**sent, "rate": "-1"}))
    root.post(LETTERS, sent)
    due = list(Delivery.objects.order_by("due_at").values_list("due_at", flat=True))
    assert round((due[-1] - due[0]).total_seconds()) == 10


# --- who may do what ---

#: Permissions -> what they allow.
VIEWS = {"view_lane": LANES, "view_deadletter": LETTERS, "view_account": "/admin/pluginhost/account/"}
ACTIONS = {
    ("lane", "pause"): "change_lane",
    ("lane", "resume"): "change_lane",
    ("lane", "replay"): "change_deadletter",
    ("lane", "discard_dead"): "delete_deadletter",
    ("lane", "discard_waiting"): "delete_lane",
    ("deadletter", "replay"): "change_deadletter",
    ("deadletter", "discard"): "delete_deadletter",
}
OPERATIONS = sorted({*ACTIONS.values()})


@pytest.mark.parametrize("permission", VIEWS)
def test_the_permission_to_view_shows_one_kind_of_page(known_to, here, permission):
    refused(here, "a")
    client = known_to(permission)
    answers = {codename: client.get(address).status_code for codename, address in VIEWS.items()}
    assert answers == {codename: 200 if codename == permission else 403 for codename in VIEWS}
    pages = {
        LETTERS: change(DeadLetter.objects.get()),
        LANES: change("recorder"),
        f"{LANES}2": f"{LANES}recorder/history/",
    }
    for address, page in pages.items():
        assert client.get(page).status_code == (200 if address.startswith(VIEWS[permission]) else 403)


def test_permissions_to_act_show_nothing(known_to, here):
    refused(here, "a")
    client = known_to(*OPERATIONS)
    for address in (*VIEWS.values(), change(DeadLetter.objects.get()), change("recorder")):
        page = client.get(address)
        assert page.status_code == 403
        assert b"no such goal" not in page.content
    assert "Event tracking" not in client.get("/admin/").content.decode()


@pytest.mark.parametrize(("page", "action"), ACTIONS)
def test_each_action_needs_its_permission(known_to, here, page, action):
    refused(here, "a")
    track("waits")
    take(here)
    pausing.pause("under_score", here)
    client = known_to("view_lane", "view_deadletter")
    address = f"/admin/pluginhost/{page}/"
    selected = ["recorder", "under_score"] if page == "lane" else [DeadLetter.objects.get().pk]
    needed = ACTIONS[page, action]
    before = everything()
    others = [codename for codename in OPERATIONS if codename != needed]
    for codename in ["view_lane", *others, needed]:
        User.objects.get().user_permissions.set(
            Permission.objects.filter(codename__in=["view_lane", "view_deadletter", codename])
        )
        allowed = codename == needed
        assert (f'value="{action}"' in html(client.get(address))) is allowed
        answer = client.post(address, {"action": action, "_selected_action": selected, "post": "yes", "reason": "x"})
        assert (answer.status_code == 403) is (not allowed and page == "lane")  # Django's own list ignores it
        assert (everything() != before) is allowed


def test_visitors_and_users_who_are_not_staff_see_nothing(site, client, here):
    refused(here, "a")
    before = everything()
    for user in (None, User.objects.create_user("ben", is_superuser=True)):
        if user:
            client.force_login(user)
        for address in (*VIEWS.values(), change(DeadLetter.objects.get()), change("recorder")):
            assert client.get(address).status_code == 302
            assert client.post(address, {"action": "pause", "_selected_action": "recorder"}).status_code == 302
    assert everything() == before


def test_a_get_changes_nothing(root, here):
    refused(here, "a")
    before = everything()
    for page, action in ACTIONS:
        address = f"/admin/pluginhost/{page}/"
        selected = "recorder" if page == "lane" else DeadLetter.objects.get().pk
        root.get(address, {"action": action, "_selected_action": selected, "post": "yes"}, follow=True)
    assert everything() == before


def test_forms_of_other_sites_are_refused(root, here):
    refused(here, "a")
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get(username="root"))
    before = everything()
    for page, action in ACTIONS:
        selected = "recorder" if page == "lane" else DeadLetter.objects.get().pk
        sent = {"action": action, "_selected_action": selected, "post": "yes"}
        assert client.post(f"/admin/pluginhost/{page}/", sent).status_code == 403
    assert everything() == before


@pytest.mark.parametrize("model", ["lane", "deadletter", "account"])
def test_nothing_is_added_edited_or_deleted(root, here, model):
    refused(here, "a")
    row = {"lane": "recorder", "deadletter": DeadLetter.objects.get().pk, "account": Account.objects.first().pk}[model]
    before = everything()
    base = f"/admin/pluginhost/{model}/"
    assert root.get(f"{base}add/").status_code == 403
    for address in (f"{base}add/", f"{base}{row}/change/", f"{base}{row}/delete/"):
        assert root.post(address, {"lane": "x", "name": "x", "post": "yes"}).status_code == 403
    root.post(base, {"action": "delete_selected", "_selected_action": row, "post": "yes"})
    assert everything() == before


def test_accounts_by_day(root, here):
    refused(here, "a", "b")
    page = root.get(VIEWS["view_account"], {"lane": "recorder"})
    assert [(each.lane, each.outcome, each.n) for each in page.context["cl"].result_list] == [
        ("recorder", "accepted", 2)
    ]


# --- where it is shown ---


def test_pages_need_no_script_or_style_of_their_own(root, here):
    refused(here, "a")
    pages = [root.get(address) for address in (LANES, LETTERS, change("recorder"), change(DeadLetter.objects.get()))]
    pages.append(act(root, LANES, "discard_dead", "recorder"))
    pages.append(act(root, LETTERS, "discard", DeadLetter.objects.get().pk))
    for page in pages:
        assert not re.search(r"<script(?![^>]* src=)[^>]*>|<style|\sstyle=|\son\w+=", html(page))
        for head in re.findall(r"<th\b[^>]*>", html(page)):
            assert 'scope="' in head or 'class="field-' in head  # Django's own list
        content = html(page).partition('id="content"')[2]
        for box in re.findall(r'<input type="(?:checkbox|text|number)"[^>]*>', content):
            assert "aria-label=" in box or re.search(r'id="(id_\w+|searchbar)"', box), box


def test_another_admin_has_links_within_itself(root, here, settings):
    """Also one that shows the lanes alone."""

    refused(here, "a")
    other = admin.AdminSite("other")
    other.register(Lane, LaneAdmin)
    settings.ROOT_URLCONF = (path("admin/", admin.site.urls), path("other/", other.urls))
    page = html(root.get("/other/pluginhost/lane/"))
    assert 'href="/other/pluginhost/lane/recorder/change/"' in page
    assert "deadletter" not in page
    other.register(DeadLetter, DeadLetterAdmin)
    settings.ROOT_URLCONF = (path("admin/", admin.site.urls), path("other/", other.urls))
    assert 'href="/other/pluginhost/deadletter/?lane=recorder"' in html(root.get("/other/pluginhost/lane/"))
    answer = root.post("/other/pluginhost/lane/", {"action": "resume", "_selected_action": "recorder"})
    assert answer.url == "/other/pluginhost/lane/"


def test_the_events_may_lie_in_another_database_than_the_users(root, database):
    """``host.database()`` says where; here all is routed alike, and no query goes past it."""
    refused(database, "a")
    assert host.database() == database
    for alias in connections:
        if alias != database:
            with CaptureQueriesContext(connections[alias]) as log:
                root.get(LANES)
                root.get(LETTERS)
            assert [query for query in log.captured_queries if "pluginhost" in query["sql"]] == []


def test_what_the_project_has_registered_itself_stays(site):
    class Own(admin.ModelAdmin):
        pass

    registered = admin.site.get_model_admin(Lane)
    admin.site.unregister(Lane)
    try:
        admin.site.register(Lane, Own)
        show()
        assert type(admin.site.get_model_admin(Lane)) is Own
    finally:
        admin.site.unregister(Lane)
        admin.site.register(Lane, type(registered))


def test_a_site_without_the_admin_needs_none_of_it():
    program = """
import sys, django
from django.conf import settings
apps = ["django.contrib.auth", "django.contrib.contenttypes", "pluginhost"]
settings.configure(INSTALLED_APPS=apps, DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3"}})
django.setup()
from django.core.management import call_command
call_command("check")
print([name for name in sys.modules if name.startswith(("pluginhost.admin", "django.contrib.admin.models"))])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
