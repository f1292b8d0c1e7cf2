"""What the journal deletes of a person who is forgotten, and what it says of an event."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError

from pluginhost import Person, RetryableError, host
from pluginhost.builtin.journal import forgetting, joining
from pluginhost.builtin.journal.models import Browser, Entry
from pluginhost.events import new_message_id
from tests.builtin.test_journal import event, journal, write
from tests.steps import run

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

ADA = Person(user_ids=("ada",), anonymous_ids=("v",))


def names() -> list[str]:
    return sorted(Entry.objects.values_list("name", flat=True))


def test_entries_of_all_ids_are_deleted_and_no_others(database: str) -> None:
    write(
        event("by user", 1, "ada", "elsewhere"),
        event("by browser", 2, visitor="v"),
        event("another's in the browser", 3, "bea", "v"),
        event("alias", 4, "ada", type="alias", previous_id="w"),
        event("alias of another", 5, "bea", type="alias", previous_id="v"),
        event("another's", 6, "bea", "b"),
        event("nobody's", 7),
    )
    said = journal().forget(ADA)
    assert names() == ["another's", "nobody's"]
    assert said.startswith("5 entries were deleted. Of 3 browsers it is no longer known whose it was.")


def test_nothing_is_found_of_somebody_unknown(database: str) -> None:
    write(event("another's", 6, "bea", "b"), event("nobody's", 7))
    assert journal().forget(ADA) == "0 entries were deleted."
    assert journal().forget(Person(user_ids=("",), anonymous_ids=("",))) == "0 entries were deleted."
    assert names() == ["another's", "nobody's"]


def test_what_was_joined_to_the_person_is_deleted(database: str) -> None:
    write(event("before the log-in", 1, visitor="w"), event("in", 2, "ada", "w"), event("after", 3, visitor="w"))
    journal().forget(Person(user_ids=("ada",)))
    assert names() == ["after"]


def test_what_an_alias_joined_to_the_person_is_deleted(database: str) -> None:
    write(event("before", 1, visitor="w"), event("alias", 2, "ada", type="alias", previous_id="w"))
    said = journal().forget(Person(user_ids=("ada",)))
    assert names() == []
    assert "Aliases said that the person is 'w' too: forget these as well" in said


def test_what_is_still_to_be_joined_is_deleted(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "JOINED_AT_ONCE", 2)
    monkeypatch.setattr(forgetting, "DELETED_AT_ONCE", 3)
    write(*[event(f"before {number}", number, visitor="w") for number in range(7)])
    keeping = journal()
    monkeypatch.setattr(keeping, "timeout", 0.0)  # no time to catch up
    write(event("in", 8, "ada", "w"), TYPES={"track"})
    Browser.objects.update(behind=True)
    journal().forget(Person(user_ids=("ada",)))
    assert names() == []


def test_a_browser_of_the_person_goes_to_nobody(database: str) -> None:
    write(event("in", 5, "ada", "w"))
    journal().forget(Person(user_ids=("ada",)))
    assert list(Browser.objects.values_list("anonymous_id", "user_id")) == [("w", "")]
    write(event("late", 1, visitor="w"), event("in", 6, "bea", "w"))
    assert Entry.objects.get(name="late").user_id == ""


def test_a_browser_that_is_given_goes(database: str) -> None:
    write(event("in", 5, "ada", "v"))
    journal().forget(ADA)
    assert not Browser.objects.exists()


def test_a_database_that_is_away_is_tried_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(person: Person, using: str) -> None:
        raise OperationalError("away\nquotes a row")

    monkeypatch.setattr(forgetting, "forget", away)
    with pytest.raises(RetryableError) as raised:
        journal().forget(ADA)
    assert str(raised.value) == "OperationalError: away"


def test_the_command_asks_the_journal(database: str, configure: Any) -> None:
    configure("outbox", journal={})
    host.track(None, "hers", user_id="ada")
    run(database, "journal")
    output = io.StringIO()
    call_command("pluginhost", "forget", "--user-id", "ada", "--no-input", stdout=output)
    assert "journal: 1 entry was deleted.\n" in output.getvalue()
    assert names() == []


def test_an_event_is_explained_by_its_entry(database: str) -> None:
    known = event("known")
    write(known)
    entry = Entry.objects.get()
    expected = f"The table pluginhost_journal_entry of the database '{database}' has entry {entry.pk}."
    assert journal().explain(known.message_id) == expected
    assert journal().explain(new_message_id()) is None
    assert journal().explain("no message id") is None
