"""Deploys that overlap: two versions of the envelope, and aliases that come, go and change their names."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from django.core.management import call_command

from pluginhost import PermanentError, host
from pluginhost.delivery import accounts
from pluginhost.events import Context, Event, Subject
from pluginhost.models import Delivery, Envelope
from pluginhost.operations import letters
from pluginhost.workers.worker import drain
from tests.fixtures import on_postgres, on_sqlite
from tests.processes import ROOT, end, environment, nothing_waits, wait_until, worker
from tests.samples import Folder, Recorder
from tests.steps import account, raising, seen, track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

# --- what version 1 wrote, and what it means. Made once; neither is changed when the code is. ---

STORED = Path(__file__).parent / "stored" / "envelope-version-1.json"
AT = dt.datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=dt.UTC)
CONTEXT = Context(
    ip="192.0.2.0",
    user_agent="Mozilla/5.0 (X11; Linux x86_64)",
    language="pt-BR,pt;q=0.9",
    method="POST",
    url="https://shop.example/cart/?utm_source=mail",
    path="/cart/",
    referrer="https://search.example/",
    route="shop:cart",
)
FULL = {
    "timestamp": AT,
    "user_id": "7",
    "anonymous_id": "a-1f0c",
    "context": CONTEXT,
    "visitor_ids": {"folder": "0123456789abcdef"},
}
ID = "01aa1b2c-0000-7000-8000-00000000000"
MEANT = [
    Event(
        type="track",
        name="order paid",
        message_id=ID + "1",
        properties={
            "plan": 'pró \u2028 "x"',
            "n": 3,
            "price": 9.5,
            "tags": ["a", None, True],
            "deep": {"k": [1, {"l": -2.5e-3}]},
        },
        subject=Subject("shop.Order", "42"),
        value=12.5,
        plugins={"folder": {"colour": "red"}, "other": False},
        **FULL,
    ),
    Event(type="page", name="Cart", message_id=ID + "2", properties={"items": 2}, value=2, **FULL),
    Event(type="identify", name="identify", message_id=ID + "3", properties={"email": "ada@example.org"}, **FULL),
    Event(type="alias", name="alias", message_id=ID + "4", previous_id="a-1f0c", **FULL),
    Event(
        type="track",
        name="least",
        message_id="d2c1b6a0-6c1e-5f3a-9b1e-0a1b2c3d4e5f",
        timestamp=dt.datetime(2026, 11, 21, tzinfo=dt.UTC),
    ),
]


def store(payload: bytes, lanes: str = "folder", version: int = 1) -> None:
    n = len(msgspec.json.decode(payload))
    Envelope.objects.create(
        envelope_id="0b0b6a0e-6d8e-4f1e-9a5e-0d9f0d1c2b3a", version=version, lanes=lanes, n=n, payload=payload
    )


def test_what_version_1_stored_means_what_it_meant(database, configure):
    configure("outbox", folder={})
    store(STORED.read_bytes())

    drain(host.registry.runners, database)

    assert Folder.seen["folder"] == MEANT
    assert set(Event.__struct_fields__) == {name for event in MEANT for name in msgspec.to_builtins(event)}, (
        "a field that is new is not in what version 1 stored; say here that it has its default"
    )


def test_what_a_newer_code_adds_to_an_event_is_kept_for_it(database, configure):
    """Within a version fields may be added: an older worker leaves them out, and out of nothing that it stores."""
    configure("outbox", folder={})
    Recorder.act["folder"] = raising(lambda: PermanentError("refused"), "bad")
    events = [
        b'{"type":"track","name":"%s","message_id":"%s","timestamp":"2026-11-21T12:00:00Z","later":{"x":[1.50]}}'
        % (name, ID.encode() + name[-1:])
        for name in (b"good 1", b"bad", b"good 3")
    ]
    store(b"[" + b",".join(events) + b"]")

    drain(host.registry.runners, database)

    assert seen("folder") == ["good 1", "good 3"]
    [letter] = Delivery.objects.all()
    assert bytes(letter.payload) == b"[" + events[1] + b"]"
    Recorder.act.clear()
    letters.replay(letters.Selection(), database)
    assert bytes(Delivery.objects.get().payload) == b"[" + events[1] + b"]"
    drain(host.registry.runners, database)
    assert seen("folder") == ["good 1", "good 3", "bad"]


# --- a newer version beside this one ---


@pytest.fixture
def written(tmp_path) -> Callable[..., list[str]]:
    """Names in a file that a lane writes to; each event is in it once."""

    def names(file: str = "written") -> list[str]:
        path = tmp_path / file
        lines = path.read_text().splitlines() if path.exists() else []
        assert len(set(lines)) == len(lines)
        return [line.rpartition(" ")[0] for line in lines]

    names.path = lambda file="written": str(tmp_path / file)
    return names


def newer(database: str, *arguments: str) -> None:
    """Let the newer code do something."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.newer", *arguments],
        env=environment(database),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def newer_worker(database: str) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.newer", "worker"],
        env=environment(database),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield
    finally:
        end(process)


def test_what_a_newer_version_wrote_waits_for_it_in_envelopes_and_in_deliveries(database, configure, written):
    configure("outbox", writer={"PATH": written.path()})
    host.track(None, "old")
    newer(database, "track", "new")
    assert sorted(Envelope.objects.values_list("version", flat=True)) == [1, 2]

    drain(host.registry.runners, database)
    assert written() == ["old"]
    assert account(database, "writer") == {"accepted": 2, "delivered": 1, "waiting": 1}

    newer(database, "take")
    assert (Envelope.objects.count(), Delivery.objects.get().version) == (0, 2)
    drain(host.registry.runners, database)
    assert written() == ["old"]
    assert account(database, "writer") == {"accepted": 2, "delivered": 1, "waiting": 1}

    host.track(None, "old, later")
    newer(database, "drain")
    assert sorted(written()) == ["new", "old", "old, later"]
    assert account(database, "writer") == {"accepted": 3, "delivered": 3}


@on_postgres
def test_workers_of_both_versions_share_the_work(database, configure, written):
    configure("outbox", writer={"PATH": written.path()})

    with worker(database), newer_worker(database):
        newer(database, "track", *(f"new {number}" for number in range(30)))
        for number in range(30):
            host.track(None, f"old {number}")
        wait_until(lambda: nothing_waits(database))

    assert sorted(written()) == sorted(f"{age} {number}" for age in ("old", "new") for number in range(30))
    assert account(database, "writer") == {"accepted": 60, "delivered": 60}


@on_sqlite
def test_dead_letters_of_a_newer_version_can_be_sent_again_and_discarded(database, configure, written):
    """By an operator at a machine that has not been upgraded."""
    configure("outbox", writer={"PATH": written.path("missing/written"), "MAX_ATTEMPTS": 1, "BATCH_SIZE": 1})
    newer(database, "track", "one", "two")
    newer(database, "drain")
    assert account(database, "writer") == {"accepted": 2, "dead": 2}

    one, two = Delivery.objects.order_by("id").values_list("message_id", flat=True)
    assert letters.discard(letters.Selection(message_ids=(two,)), database, reason="not wanted") == 1
    assert letters.replay(letters.Selection(message_ids=(one,)), database) == 1

    Path(written.path("missing")).mkdir()
    newer(database, "drain")
    assert written("missing/written") == ["one"]
    assert account(database, "writer") == {"accepted": 2, "delivered": 1, "discarded": 1}


# --- aliases ---


def test_an_alias_that_is_added_does_not_get_the_past(database, configure):
    configure("outbox", folder={})
    track("before")
    configure("outbox", folder={}, recorder={})
    track("after")

    drain(host.registry.runners, database)

    assert (seen("folder"), seen("recorder")) == (["before", "after"], ["after"])
    assert account(database, "recorder") == {"accepted": 1, "delivered": 1}


def test_one_worker_knows_an_alias_that_the_other_does_not(database, configure, written):
    """The web processes are new already; the old worker takes their envelopes, and leaves the new lane alone."""
    old, quick = {"PATH": written.path("old")}, {"PLUGIN": "writer", "PATH": written.path("quick")}
    configure("outbox", writer=old)
    with worker(database):
        configure("outbox", writer=old, quick=quick)
        host.track(None, "one")
        wait_until(lambda: written("old") == ["one"])
        wait_until(lambda: accounts.read(database)["writer"]["delivered"] == 1)
        assert account(database, "quick") == {"accepted": 1, "waiting": 1}
        with worker(database):
            wait_until(lambda: written("quick") == ["one"])
            host.track(None, "two")
            wait_until(lambda: nothing_waits(database))
    assert written("old") == written("quick") == ["one", "two"]


def test_an_alias_that_was_removed_is_seen_and_its_backlog_kept(database, configure, capsys):
    configure("outbox", folder={}, recorder={})
    track("a", "b")
    configure("outbox", folder={})
    drain(host.registry.runners, database)

    call_command("pluginhost", "lanes", "--json", "--database", database)
    shown = {lane["lane"]: lane for lane in msgspec.json.decode(capsys.readouterr().out)["lanes"]}
    assert (shown["recorder"]["enabled"], shown["recorder"]["waiting"]) == (False, 2)
    call_command("pluginhost", "audit", "--database", database)
    assert "recorder balances: accepted 2, delivered 0, skipped 0, waiting 2" in capsys.readouterr().out

    configure("outbox", folder={}, recorder={})
    drain(host.registry.runners, database)
    assert seen("recorder") == ["a", "b"]


def test_an_alias_is_renamed_while_workers_of_both_deploys_run(database, configure, written):
    """What the old web processes accept after the first ``rename`` follows with the second."""
    configure("outbox", writer={"PATH": written.path(), "PLUGIN": "writer"})
    host.track(None, "before")
    old_settings = {"writer": {"PATH": written.path(), "PLUGIN": "writer"}}
    new_settings = {"scribe": {"PATH": written.path(), "PLUGIN": "writer"}}
    configure("outbox", **new_settings)
    call_command("pluginhost", "rename", "writer", "scribe", "--database", database, "--verbosity", "0")
    with worker(database):
        wait_until(lambda: written() == ["before"])
        configure("outbox", **old_settings)
        host.track(None, "by an old process")
        configure("outbox", **new_settings)
        host.track(None, "by a new one")
        wait_until(lambda: "by a new one" in written())
        wait_until(lambda: not Envelope.objects.exists())
        assert account(database, "writer") == {"accepted": 1, "waiting": 1}
        call_command("pluginhost", "rename", "writer", "scribe", "--database", database, "--verbosity", "0")
        wait_until(lambda: nothing_waits(database))

    assert written() == ["before", "by a new one", "by an old process"]
    assert account(database, "scribe") == {"accepted": 3, "delivered": 3}
    assert not any(accounts.read(database).get("writer", {}).values())
