"""``manage.py pluginhost forget``: what it prints, and the status it ends with."""

from __future__ import annotations

import builtins
import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import RequestFactory

from pluginhost import RetryableError, host
from pluginhost.delivery.intake import take
from pluginhost.models import Delivery, Envelope, Forgotten
from pluginhost.operations import forgetting
from pluginhost.plugin import Person
from tests.docs_pages import DOCS, blocks
from tests.samples import Folder, Recorder
from tests.steps import account, run, seen, track

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


@pytest.fixture(autouse=True)
def memory(monkeypatch) -> dict[type, list[Person]]:
    """The sample plugins forget, and remember who it was."""
    people: dict[type, list[Person]] = {Recorder: [], Folder: []}

    def forget(plugin, person):
        people[type(plugin)].append(person)
        if answer := Recorder.act.get(f"{plugin.alias}.forget"):
            raise answer
        return "All is gone."

    monkeypatch.setattr(Recorder, "forget", forget)
    return people


def forget(*arguments: str, **options) -> str:
    out = io.StringIO()
    call_command(
        "pluginhost", "forget", "--no-input", *arguments, stdout=out, stderr=io.StringIO(), no_color=True, **options
    )
    return out.getvalue()


def refused(*arguments: str) -> tuple[str, str]:
    """What it prints, and what it says at the end, with status 1."""
    out = io.StringIO()
    with pytest.raises(CommandError) as raised:
        call_command("pluginhost", "forget", "--no-input", *arguments, stdout=out, stderr=io.StringIO(), no_color=True)
    assert raised.value.returncode == 1
    return out.getvalue(), str(raised.value)


def test_it_says_what_was_done_and_what_each_plugin_says(configure, database, memory):
    configure("outbox", recorder={}, folder={})
    with host.batch():
        host.track(None, "in a chunk", user_id="42")
        track("another's")
    take(database)
    host.track(None, "in an envelope", anonymous_id="a1")
    output = forget("--user-id", "42", "43", "--user-id", "44", "--anonymous-id", "a1")
    assert output.splitlines() == [
        "outbox: erased 2 events (envelopes 1, chunks 1, waiting 0, dead 0)",
        "recorder: All is gone.",
        "folder: All is gone.",
    ]
    person = Person(user_ids=("42", "43", "44"), anonymous_ids=("a1",))
    assert memory == {Recorder: [person], Folder: [person]}
    run(database, "recorder")
    assert seen("recorder") == ["another's"]
    assert account(database, "recorder") == {"accepted": 3, "delivered": 1, "discarded": 2}


def test_it_may_be_repeated(configure, database, memory):
    configure("outbox", recorder={})
    host.track(None, "hers", user_id="42")
    forget("--user-id", "42")
    assert forget("--user-id", "42").startswith("outbox: erased 0 events")
    assert len(memory[Recorder]) == 2
    assert account(database, "recorder") == {"accepted": 1, "discarded": 1}


def test_a_dry_run_changes_nothing(configure, database, memory):
    configure("outbox", recorder={}, folder={})
    host.track(None, "hers", user_id="42")
    assert forget("--user-id", "42", "--dry-run").splitlines() == [
        "outbox: has 1 event (envelopes 1, chunks 0, waiting 0, dead 0)",
        "would ask: recorder, folder",
    ]
    assert Envelope.objects.count() == 1
    assert not Forgotten.objects.exists()
    assert memory == {Recorder: [], Folder: []}


def test_others_ids_are_only_suggested(configure, database):
    configure("outbox", recorder={})
    host.track(None, "hers", user_id="42", anonymous_id="her browser")
    host.track(None, "of the same browser", anonymous_id="her browser")
    assert forget("--user-id", "42").splitlines()[-2:] == [
        "These events had other ids too. Any that is only this person's, give as well:",
        "  --anonymous-id='her browser'",
    ]
    run(database, "recorder")
    assert seen("recorder") == ["of the same browser"]


def test_json(configure, database):
    configure("outbox", recorder={})
    host.track(None, "hers", user_id="42", anonymous_id="a1")
    assert json.loads(forget("--user-id", "42", "--json")) == {
        "dry_run": False,
        "user_ids": ["42"],
        "anonymous_ids": [],
        "outbox": {"envelopes": 1, "chunks": 0, "waiting": 0, "dead": 0},
        "held": 0,
        "unreadable": [],
        "plugins": [{"alias": "recorder", "outcome": "done", "sentence": "All is gone."}],
        "not_asked": {},
        "others": {"user_ids": [], "anonymous_ids": ["a1"]},
        "left": [],
    }


def test_what_is_to_be_done_by_hand_is_said_and_is_no_failure(configure, database):
    configure("outbox", recorder={})
    Recorder.act["recorder.forget"] = NotImplementedError("Write to them.")
    assert "recorder: by hand: Write to them.\n" in forget("--user-id", "42")


def test_a_plugin_that_fails_keeps_no_other_from_forgetting(configure, database, memory):
    configure("outbox", recorder={}, folder={})
    Recorder.act["recorder.forget"] = RetryableError("they are away")
    printed, said = refused("--user-id", "42")
    assert "recorder: failed: RetryableError: they are away\nfolder: All is gone.\n" in printed
    assert said == "not all is forgotten:\nrecorder failed: run it again, once what they say is mended."
    assert len(memory[Folder]) == 1
    assert json.loads(refused("--user-id", "42", "--json")[0])["plugins"][0]["outcome"] == "failed"


def test_who_is_not_asked_is_named(configure, database, monkeypatch):
    configure("outbox", recorder={}, folder={})
    track("before")
    run(database, "folder")
    configure("outbox", recorder={})
    monkeypatch.setattr(host.registry.plugins["recorder"].plugin, "personal_data", False)
    assert forget("--user-id", "42").splitlines()[1:] == [
        "recorder: not asked: has no personal data",
        "folder: not asked: not enabled",
    ]


def test_where_all_is_turned_off_something_is_left(configure, database, memory):
    configure("outbox", recorder={})
    host.track(None, "hers", user_id="42")
    configure("outbox", recorder={}, ENABLED=False)
    printed, said = refused("--user-id", "42")
    assert printed.startswith("outbox: erased 1 event ")
    assert "'ENABLED'] is False, so no plugin was asked: run it again" in said
    assert memory[Recorder] == []


def test_what_can_not_be_read_is_left(configure, database):
    configure("outbox", recorder={})
    track("newer")
    Envelope.objects.update(version=99)
    Delivery.objects.create(lane="recorder", payload=b'["42"', version=1, n=1, state="dead")
    printed, said = refused("--user-id", "42")
    assert f"outbox: envelope {Envelope.objects.get().pk} of recorder can't be read: of a newer version" in printed
    assert f"outbox: delivery {Delivery.objects.get().pk} of recorder can't be read: unreadable payload" in printed
    assert "run it again with that version" in said
    assert "delete with discard" in said


def test_what_workers_do_not_let_go_of_is_left(configure, database, monkeypatch):
    configure("outbox", recorder={})

    def held(person, using, progress):
        for _ in range(3):
            progress("waiting for workers")
        return forgetting.Forgetting(still_held=2)

    monkeypatch.setattr(forgetting, "forget", held)
    err = io.StringIO()
    with pytest.raises(CommandError, match="workers still hold events, which may be the person's: run it again"):
        call_command("pluginhost", "forget", "--user-id=42", "--no-input", stdout=io.StringIO(), stderr=err)
    assert err.getvalue() == "waiting for workers\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param([], "whom? Give --user-id or --anonymous-id.", id="nobody"),
        pytest.param(["--user-id", " "], "an id is empty.", id="blank"),
        pytest.param(["--user-id", "\udcff"], r"'\udcff' is no text.", id="bytes"),
        pytest.param(
            ["--user-id", "42", "--database", "elsewhere"], "there is no database 'elsewhere'.", id="database"
        ),
    ],
)
def test_whom_it_can_not_forget(configure, database, arguments, said):
    configure("outbox", recorder={})
    assert refused(*arguments) == ("", said)
    assert not Forgotten.objects.exists()


@pytest.mark.parametrize(("answer", "forgets"), [("y", True), ("yes", True), ("", False), ("n", False), (None, False)])
def test_it_asks_first(configure, database, monkeypatch, answer, forgets):
    configure("outbox", recorder={})
    asked = []

    def answered(question: str) -> str:
        asked.append(question)
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr(builtins, "input", answered)
    arguments = ["pluginhost", "forget", "--user-id", "42", "--anonymous-id", "a1"]
    if forgets:
        call_command(*arguments, stdout=io.StringIO())
    else:
        with pytest.raises(CommandError, match="nobody"):
            call_command(*arguments, stdout=io.StringIO())
    assert asked == ["Forget the person with user id '42' and anonymous id 'a1', for good? [y/N] "]
    assert Forgotten.objects.exists() is forgets


# --- what the page says ---


def shown(word: str) -> str:
    """The example of the page that has this word in it."""
    page = DOCS / "howto" / "forget-a-person.md"
    return next(block.text for block in blocks(page) if block.language == "python" and word in block.text)


def test_an_account_is_deleted_as_the_page_says(request, configure, database, client, django_user_model):
    """The view queues it with its commit, and the task forgets."""
    celery = pytest.importorskip("celery")
    before = celery.current_app._get_current_object()  # of another test, and perhaps closed
    request.addfinalizer(before.set_current)
    celery.Celery("page").set_current()
    configure("outbox", recorder={})
    ada = django_user_model.objects.create_user("ada")
    pk = ada.pk
    host.track(None, "hers", user_id=str(pk))
    posted = RequestFactory().post("/delete/")
    posted.user, posted.session = ada, client.session
    namespace = {"host": host, "__name__": f"docs_{database}"}
    exec(shown("delete_account"), namespace)
    queued = []
    namespace["forget"].delay = lambda ids: queued.append((ids, connections[database].in_atomic_block))

    assert namespace["delete_account"](posted).url == "/"
    assert not django_user_model.objects.exists()
    assert queued == [([f"--user-id={pk}"], False)]
    namespace["forget"](queued[0][0])
    assert account(database, "recorder") == {"accepted": 1, "discarded": 1}


def test_a_plugin_forgets_as_the_page_says():
    namespace = {}
    exec(shown("Newsletter"), namespace)
    newsletter = namespace["Newsletter"]("newsletter", None)
    newsletter.subscribers.update({"ada": "x", "bea": "y"})
    assert newsletter.forget(Person(user_ids=("ada", "eve"))) == "1 subscribers were deleted."
    assert newsletter.subscribers == {"bea": "y"}
