"""Whose anonymous entries are: the user's who logs in next, if nobody else was there; in any order of arrival."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pluginhost import Batch, RetryableError, host
from pluginhost.builtin.journal import joining
from pluginhost.builtin.journal.models import Browser, Entry
from pluginhost.workers.worker import drain
from tests.builtin.test_journal import at_once, event, failing, journal, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.test import Client

    from pluginhost import Event

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


def users() -> dict[str, str]:
    """Name of an event -> its user."""
    return dict(Entry.objects.values_list("name", "user_id"))


def expected(events: list[Event]) -> dict[str, str]:
    """The rule, said once more: the user of the next event that has one, if until then there is no other."""
    seen = [
        (visitor, each.timestamp, each.user_id)
        for each in events
        if each.user_id
        for visitor in (each.anonymous_id, each.previous_id)
    ]

    def user(one: Event) -> str:
        if one.user_id or not one.anonymous_id:
            return one.user_id or ""
        here = [(at, user_id) for visitor, at, user_id in seen if visitor == one.anonymous_id]
        later = [at for at, _ in here if at >= one.timestamp]
        candidates = {user_id for at, user_id in here if later and at <= min(later)}
        return candidates.pop() if len(candidates) == 1 else ""

    return {each.name: user(each) for each in events}


# --- the rule ---


def test_what_came_before_the_log_in_gets_the_user(database: str) -> None:
    write(event("before", 1, visitor="v"), event("elsewhere", 1, visitor="w"), event("nobody's", 1))
    write(event("logged in", 2, "ada", "v"))
    write(event("after", 3, visitor="v"))

    assert users() == {"before": "ada", "logged in": "ada", "elsewhere": "", "nobody's": "", "after": ""}
    assert [entry.name for entry in Entry.objects.filter(joined=True)] == ["before"]


def test_what_came_between_two_log_ins_of_the_same_user_gets_the_user(database: str) -> None:
    write(event("logged in", 1, "ada", "v"), event("logged out", 2, visitor="v"), event("again", 3, "ada", "v"))

    assert users()["logged out"] == "ada"


def test_a_shared_browser_gives_nobody_the_rows_of_another(database: str) -> None:
    write(event("a browses", 1, visitor="v"))
    write(event("a is logged in", 2, "a", "v"))
    write(event("b browses", 3, visitor="v"))
    write(event("b is logged in", 4, "b", "v"))
    write(event("who?", 5, visitor="v"))
    write(event("a is back", 6, "a", "v"), event("who??", 6.5, visitor="v"), event("b is back", 7, "b", "v"))

    assert {name: user for name, user in users().items() if name not in ("a is back", "b is back")} == {
        "a browses": "a",
        "a is logged in": "a",
        "b browses": "",
        "b is logged in": "b",
        "who?": "",
        "who??": "",
    }


def test_what_was_joined_is_taken_back_when_another_user_turns_out_to_have_been_there(database: str) -> None:
    write(event("1", 1, visitor="v"), event("3", 3, visitor="v"), event("5", 5, "a", "v"))
    assert users() == {"1": "a", "3": "a", "5": "a"}

    write(event("2", 2, "b", "v"))
    assert users() == {"1": "b", "2": "b", "3": "", "5": "a"}
    assert set(Entry.objects.filter(joined=True).values_list("name", flat=True)) == {"1"}


def test_what_was_joined_between_two_log_ins_is_taken_back_likewise(database: str) -> None:
    write(event("1", 1, "a", "v"), event("2", 2, visitor="v"), event("3", 3, "a", "v"))
    write(event("5", 5, visitor="v"), event("6", 6, "a", "v"))
    assert users()["5"] == "a"

    write(event("4", 4, "b", "v"))
    assert users() == {"1": "a", "2": "a", "3": "a", "4": "b", "5": "", "6": "a"}


def test_two_users_at_the_same_moment_are_one_too_many(database: str) -> None:
    write(event("before", 1, visitor="v"), event("a", 2, "a", "v"))
    assert users()["before"] == "a"

    write(event("b", 2, "b", "v"))
    assert users()["before"] == ""


def test_an_alias_joins_what_came_under_the_previous_id(database: str) -> None:
    write(event("before", 1, visitor="old"), event("after", 3, visitor="old"))
    write(event("alias", 2, "ada", type="alias", previous_id="old"))

    assert users() == {"before": "ada", "alias": "ada", "after": ""}


def test_an_alias_takes_nothing_from_a_user(database: str) -> None:
    write(event("hers", 1, "bea", "old"), event("whose?", 2, visitor="old"))
    write(event("alias", 3, "ada", type="alias", previous_id="old"))
    write(event("alias of a user", 3, "ada", type="alias", previous_id="bea"))

    assert users() == {"hers": "bea", "whose?": "", "alias": "ada", "alias of a user": "ada"}


def test_an_event_that_comes_late_is_joined_or_not_as_if_it_had_come_in_time(database: str) -> None:
    write(event("2", 2, "a", "v"), event("4", 4, "b", "v"))
    write(event("1", 1, visitor="v"), event("3", 3, visitor="v"))

    assert users() == {"1": "a", "2": "a", "3": "", "4": "b"}


def test_a_repeated_event_is_no_new_trace(database: str) -> None:
    """The first of two with one message id is the one that is kept; the other shows nobody."""
    first = event("kept", 2, "a", "v")
    write(event("before", 1, visitor="v"), first)
    write(event("dropped", 1, "b", "v", message_id=first.message_id))

    assert users() == {"before": "a", "kept": "a"}


def test_from_a_visit_to_the_entries_of_a_user(database: str, configure: Any, client: Client) -> None:
    configure("outbox", journal={}, ANONYMOUS_COOKIE="visitor", IDENTITY="always")
    user = User.objects.create_user("ada")
    client.get("/order/")
    client.force_login(user)
    client.get("/order/")
    del client.cookies["sessionid"]  # logged out; the browser keeps the other cookie
    client.get("/order/")
    drain(host.registry.runners, database)

    entries = list(Entry.objects.order_by("timestamp", "id"))
    assert len({entry.anonymous_id for entry in entries}) == 1
    assert entries[0].anonymous_id
    assert [(entry.user_id, entry.joined) for entry in (entries[0], entries[-1])] == [(str(user.pk), True), ("", False)]
    assert set(Entry.objects.of_user(user)) == set(entries[:-1])


# --- any order ---


VISITORS = ["v", "w"]
KINDS = st.tuples(
    st.integers(0, 7), st.sampled_from([None, None, "a", "b", "c"]), st.sampled_from([*VISITORS, None]), st.booleans()
)


def made(kinds: list[tuple[int, str | None, str | None, bool]]) -> list[Event]:
    events = []
    for number, (minute, user, visitor, aliased) in enumerate(kinds):
        alias = {"type": "alias", "previous_id": VISITORS[minute % 2]} if aliased else {}
        events.append(event(str(number), minute, user, visitor, **alias))
    return events


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(kinds=st.lists(KINDS, min_size=1, max_size=14), data=st.data())
def test_any_order_and_redelivery_joins_by_the_rule(
    database: str, kinds: list[tuple[int, str | None, str | None, bool]], data: st.DataObject
) -> None:
    Entry.objects.all().delete()
    Browser.objects.all().delete()
    events = made(kinds)
    order = data.draw(st.permutations(events))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(order)), max_size=4)))
    so_far: list[Event] = []
    for begin, end in zip([0, *cuts], [*cuts, len(order)], strict=True):
        again = data.draw(st.lists(st.sampled_from(order[:end]), max_size=3))
        so_far += order[begin:end]
        write(*again, *order[begin:end])
        assert users() == expected(so_far)
    assert set(Entry.objects.filter(joined=True).values_list("name", flat=True)) == {
        each.name for each in events if users()[each.name] and not each.user_id
    }


def test_workers_that_join_at_once_miss_nothing(database: str) -> None:
    """One writes the anonymous events, the others those of the users, all of the same browsers."""
    chance = random.Random(1)
    kinds = [(n, chance.choice([*"abc", *[None] * 30]), f"v{n % 11}", False) for n in range(360)]
    events = made(kinds)
    chance.shuffle(events)

    def work(share: int) -> Callable[[], None]:
        def deliver() -> None:
            mine = events[share::3]
            for begin in range(0, len(mine), 10):
                for _ in range(100):
                    try:
                        write(*mine[begin : begin + 10])
                        break
                    except RetryableError:  # SQLite was busy for too long
                        continue

        return deliver

    at_once(*[work(share) for share in range(3)])
    assert users() == expected(events)
    assert {entry.user_id for entry in Entry.objects.filter(joined=True)} == {"a", "b", "c"}


def test_ids_are_the_same_only_if_every_character_is(any_database: str) -> None:
    """Whatever the database's collation takes for equal."""
    visitors = ["abc", "ABC", "\u00e1bc", "abc "]
    write(*[event(visitor, 1, visitor=visitor) for visitor in visitors])
    write(*[event("log-in", 2, f"user {number}", visitor) for number, visitor in enumerate(visitors)])

    whose = dict(Entry.objects.filter(joined=True).values_list("anonymous_id", "user_id"))
    assert whose == {visitor: f"user {number}" for number, visitor in enumerate(visitors)}
    assert Entry.objects.of_user("USER 0").count() == 0


# --- what it costs ---


def updates(queries: CaptureQueriesContext) -> list[str]:
    """On MariaDB, a setting that is only for one statement stands before it."""
    return [each["sql"] for each in queries if re.match(r"(SET STATEMENT \S+ FOR )?UPDATE ", each["sql"])]


def test_a_batch_takes_a_few_statements_whatever_its_size(database: str) -> None:
    def statements(number: int) -> int:
        events = [event(f"{number}", 1, visitor=f"v{n}-{number}") for n in range(number)]
        events += [event(f"{number}", 2, f"u{n}", f"v{n}-{number}") for n in range(number)]
        batch = Batch(events)
        with CaptureQueriesContext(connections[database]) as queries:
            writer.aggregate(batch)
        assert len(updates(queries)) == 1
        inserting = ("INSERT INTO", "SAVEPOINT", "LOCK IN SHARE MODE")
        return len([each for each in queries if not any(word in each["sql"] for word in inserting)])

    writer = journal()
    writer.aggregate(Batch([event()]))
    assert statements(2) == statements(150) <= 8
    assert Entry.objects.filter(user_id="").count() == 1


def test_anonymous_events_join_nothing(database: str) -> None:
    writer = journal()
    writer.aggregate(Batch([event()]))
    with CaptureQueriesContext(connections[database]) as queries:
        writer.aggregate(Batch([event(visitor="v"), event(visitor="w")]))
    assert not updates(queries)
    assert not Browser.objects.exists()


def test_a_very_long_past_is_joined_piece_by_piece(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "JOINED_AT_ONCE", 4)
    write(*[event(f"{minute:02}", minute, visitor="v") for minute in range(30)])
    writer = journal(TYPES=["track"])
    with CaptureQueriesContext(connections[database]) as queries:
        writer.aggregate(Batch([event("log-in", 40, "a", "v")]))
    assert len([sql for sql in updates(queries) if "pluginhost_journal_entry" in sql]) > 7
    assert set(users().values()) == {"a"}
    assert not Browser.objects.filter(behind=True).exists()


def test_what_a_batch_has_no_time_for_the_next_one_does(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "JOINED_AT_ONCE", 4)
    write(*[event(f"{minute:02}", minute, visitor="v") for minute in range(30)])
    hasty = journal()
    hasty.timeout = 0.0
    hasty.aggregate(Batch([event("log-in", 40, "a", "v")]))
    assert Entry.objects.filter(joined=True).count() == 4
    assert Browser.objects.get().behind

    write(event("another process", 50))
    assert Entry.objects.filter(joined=True).count() == 30
    assert not Browser.objects.get().behind


def test_a_very_long_past_is_also_taken_back(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "JOINED_AT_ONCE", 4)
    events = [event(f"{minute:02}", minute, visitor="v") for minute in range(5, 30)]
    events += [event("log-in", 40, "a", "v"), event("earlier", 10, "b", "v")]
    for each in events:
        write(each)
    assert users() == expected(events)


def test_a_failure_to_join_the_rest_is_no_failure_of_the_batch(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from django.db import OperationalError

    monkeypatch.setattr(joining, "JOINED_AT_ONCE", 1)
    write(event("1", 1, visitor="v"), event("2", 2, visitor="v"))
    writer = journal()
    with failing(database, OperationalError("locked"), 'WHERE "pluginhost_journal_browser"."behind"'):
        writer.aggregate(Batch([event("3", 3, "a", "v")]))
    assert "could not join or delete old entries" in caplog.text
    writer.aggregate(Batch([event("4", 4)]))
    assert users() == {"1": "a", "2": "a", "3": "a", "4": ""}
