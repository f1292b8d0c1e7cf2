"""What ``KEEP_DAYS`` deletes, and what stays known of it: that somebody was there."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from django.db import OperationalError
from django.utils import timezone

from pluginhost import Batch
from pluginhost.builtin.journal import retention
from pluginhost.builtin.journal.models import Browser, Entry
from pluginhost.builtin.journal.retention import prune
from tests.builtin.test_journal import event, failing, journal, write

if TYPE_CHECKING:
    from pluginhost import Event

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


def ago(name: str, days: float, user: str | None = None, visitor: str | None = None) -> Event:
    return event(name, 0, user, visitor, timestamp=dt.datetime.now(dt.UTC) - dt.timedelta(days=days))


def names() -> set[str]:
    return set(Entry.objects.values_list("name", flat=True))


def test_entries_are_kept_for_their_days_and_then_deleted(database: str) -> None:
    write(ago("old", 31), ago("young", 29))
    write(ago("new", 0), KEEP_DAYS=30)

    assert names() == {"young", "new"}


def test_without_the_option_everything_is_kept(database: str) -> None:
    write(ago("ancient", 9999), ago("new", 0))

    assert names() == {"ancient", "new"}


def test_deleting_is_rare_bounded_and_keeps_up(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PRUNED_AT_ONCE", 2)
    keeping = journal(KEEP_DAYS=30)
    write(*[ago(f"old {number}", 40 + number) for number in range(5)])
    left = []
    for _ in range(4):
        keeping.aggregate(Batch([ago("new", 0)]))
        left.append({name for name in names() if name != "new"})
    assert left == [{"old 0", "old 1", "old 2"}, {"old 0"}, set(), set()]

    keeping.aggregate(Batch([ago("old 6", 40)]))
    assert "old 6" in names()
    keeping._prune_at = 0.0  # an hour later
    keeping.aggregate(Batch([ago("new", 0)]))
    assert names() == {"new"}


def test_who_it_was_is_forgotten_with_the_entries_but_not_that_it_was_somebody(database: str) -> None:
    write(ago("ada", 40, "ada", "v"), ago("whose?", 20, visitor="v"))
    prune(30, database)
    assert not Browser.objects.filter(user_id="ada").exists()

    write(ago("bea", 1, "bea", "v"), ago("late", 35, visitor="v"))
    assert {entry.name: entry.user_id for entry in Entry.objects.all()} == {"whose?": "", "bea": "bea", "late": ""}


def test_a_user_who_is_still_there_is_not_forgotten(database: str) -> None:
    write(ago("long ago", 40, "ada", "v"), ago("lately", 5, "ada", "v"), ago("between", 20, visitor="v"))
    prune(30, database)
    assert set(Entry.objects.values_list("name", "user_id")) == {("lately", "ada"), ("between", "ada")}

    write(ago("out", 3, visitor="v"), ago("in", 1, "ada", "v"))
    assert Entry.objects.get(name="out").user_id == "ada"


def test_an_anonymous_id_is_forgotten_when_no_browser_can_have_it_any_more(database: str) -> None:
    write(ago("ada", 401, "ada", "v"), ago("bea", 399, "bea", "w"), ago("cleo", 1, "cleo", "x"))
    prune(30, database)
    assert set(Browser.objects.values_list("anonymous_id", "user_id")) == {("v", ""), ("w", ""), ("x", "cleo")}

    def set_back(days: int) -> None:
        Browser.objects.filter(user_id="").update(until=timezone.now() - dt.timedelta(days=days))

    set_back(399)
    prune(30, database)
    assert Browser.objects.count() == 3
    set_back(401)
    prune(30, database)
    assert Browser.objects.get().anonymous_id == "x"


def test_a_trace_of_anybody_keeps_an_anonymous_id_known(database: str) -> None:
    write(ago("ada", 900, "ada", "v"))
    prune(30, database)
    Browser.objects.update(until=timezone.now() - dt.timedelta(days=450))
    write(ago("bea", 10, "bea", "v"))
    prune(30, database)

    assert Browser.objects.get().user_id == ""


def test_what_is_still_to_be_joined_is_not_forgotten(database: str) -> None:
    write(ago("ada", 40, "ada", "v"))
    Browser.objects.update(behind=True)
    prune(30, database)

    assert Browser.objects.get().user_id == "ada"


def test_a_failure_to_delete_is_no_failure_of_the_batch(database: str, caplog: pytest.LogCaptureFixture) -> None:
    write(ago("old", 40))
    with failing(database, OperationalError("locked"), 'DELETE FROM "pluginhost_journal_entry" WHERE "p'):
        write(ago("new", 0), KEEP_DAYS=30)

    assert names() == {"old", "new"}
    assert "could not join or delete old entries" in caplog.text
