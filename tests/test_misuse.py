"""The commands in bad situations: they say what is wrong in a line, and end with a status above 0."""

from __future__ import annotations

import builtins
import io

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections

from pluginhost import PermanentError
from pluginhost.models import Delivery, Forgotten
from pluginhost.operations import letters
from tests.samples import Recorder
from tests.steps import run, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

#: All that ask the outbox.
ASKING = [
    ["list"],
    ["lanes"],
    ["dead"],
    ["replay", "--all"],
    ["discard", "--all", "--no-input"],
    ["pause", "recorder"],
    ["resume", "recorder"],
    ["rename", "old", "recorder"],
    ["audit"],
    ["explain", "x"],
    ["forget", "--user-id", "42", "--no-input"],
    ["worker", "--drain"],
]


def fails(*arguments: str) -> tuple[str, str, int]:
    """The error, what was written to stderr, and the exit status."""
    err = io.StringIO()
    with pytest.raises(CommandError) as raised:
        call_command("pluginhost", *arguments, stdout=io.StringIO(), stderr=err, no_color=True)
    return str(raised.value), err.getvalue(), raised.value.returncode


@pytest.mark.parametrize("arguments", [*ASKING, ["worker"]], ids=" ".join)
def test_a_database_that_there_is_not(configure, arguments):
    configure("outbox", recorder={})
    said, _, status = fails(*arguments, "--database", "defualt")
    assert said == "there is no database 'defualt'. Did you mean 'default'?"
    assert status == 1


@pytest.mark.parametrize("arguments", ASKING[1:], ids=" ".join)
def test_before_migrate(configure, database, arguments, monkeypatch):
    """Also of a later version: one of its tables is missing then."""
    configure("outbox", recorder={})
    monkeypatch.setattr(Forgotten._meta, "db_table", "pluginhost_not_yet")
    assert fails(*arguments) == ("the outbox has no tables yet: run migrate.", "", 1)


@pytest.mark.parametrize("arguments", ASKING, ids=" ".join)
def test_a_database_that_is_away(configure, database, arguments, monkeypatch):
    configure("outbox", recorder={})

    def away(*_: object) -> None:
        raise OperationalError("connection refused\n\tIs the server running?")

    monkeypatch.setattr(type(connections[database].introspection), "table_names", away)
    assert fails(*arguments) == ("the database refuses: connection refused", "", 1)


@pytest.mark.parametrize(
    ("ended", "said"), [(EOFError(), "nobody is there to confirm it: give --no-input."), (KeyboardInterrupt(), None)]
)
@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [(["discard", "--all"], "nothing was discarded."), (["forget", "--user-id", "42"], "nobody was forgotten.")],
    ids=["discard", "forget"],
)
def test_a_question_that_nobody_answers(configure, database, monkeypatch, arguments, refusal, ended, said):
    configure("outbox", recorder={})
    Recorder.act["recorder"] = lambda event: (_ for _ in ()).throw(PermanentError("no"))
    track("dead")
    run(database, "recorder")

    def ask(question: str) -> str:
        raise ended

    monkeypatch.setattr(builtins, "input", ask)
    assert fails(*arguments) == (said or refusal, "\n", 1)
    assert Delivery.objects.count() == 1
    assert not Forgotten.objects.exists()


def test_a_replay_that_is_interrupted(configure, database, monkeypatch):
    configure("outbox", recorder={})

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(letters, "replay_or_forget", interrupt)
    assert fails("replay", "--all") == ("interrupted. What was done until now is done.", "\n", 130)
