"""A provider that fails holds up nobody: no other lane, no page; and what it missed arrives when it is back."""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter, defaultdict
from email.utils import format_datetime
from statistics import median
from typing import TYPE_CHECKING

import pytest

from demo.standin import FAULTS, StandIn
from pluginhost import host
from pluginhost.delivery import accounts
from pluginhost.operations import letters
from pluginhost.operations.reading import read
from tests.fixtures import on_postgres, on_sqlite
from tests.processes import nothing_waits, wait_until, worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.django_db(databases="__all__", transaction=True)]

#: A lane that tries again soon, with time-outs that a test can wait for.
EAGER = {"RETRY_DELAY": 0.2, "RETRY_MAX_DELAY": 0.4, "READ_TIMEOUT": 0.5}


#: Faults of the whole provider, which some day is over.
OUTAGES = [fault for fault in FAULTS if fault != "400"]
#: By so many seconds a lane's events may come later while another lane fails: by what the machine has to do beside it.
#: Who waited for the provider that never answers would come later by more.
SLACK = 3.0


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture
def lanes(configure, stand_in, tmp_path) -> Path:
    """Both providers, and a lane beside them that writes names into this file."""
    path = tmp_path / "written"
    path.touch()
    configure(
        "outbox",
        kissmetrics={"API_KEY": stand_in.KEY, "TRACKING_URL": stand_in.kissmetrics_url, **EAGER},
        piwik={"URL": stand_in.matomo_url, "SITE_ID": 1, "TOKEN_AUTH": stand_in.TOKEN, **EAGER},
        writer={"PATH": str(path)},
    )
    return path


def written(path: Path) -> list[str]:
    return [line.split()[0] for line in path.read_text().splitlines()]


def names(stand_in: StandIn, provider: str) -> Counter[str]:
    """What the provider has kept, by name."""
    key = "_n" if provider == "kissmetrics" else "e_a"
    return Counter(hit.sent[key] for hit in stand_in.received(provider))


both_providers = pytest.mark.parametrize(
    ("failing", "lane", "healthy"), [("kissmetrics", "kissmetrics", "matomo"), ("matomo", "piwik", "kissmetrics")]
)


@both_providers
def test_a_provider_that_fails_holds_up_nobody(database, lanes, stand_in, client, failing, lane, healthy):
    # Of KISSmetrics' answer only the beginning counts: one that is broken off is no failure.
    faults = [fault for fault in OUTAGES if (failing, fault) != ("kissmetrics", "half")]
    expected: list[str] = []

    def all_has_arrived(provider: str) -> bool:
        return names(stand_in, provider) == Counter(expected)

    def all_is_written() -> bool:
        return written(lanes) == expected

    with worker(database):
        for fault in faults:
            round_ = [f"{fault}-{n}" for n in range(3)]
            expected += round_
            stand_in.fail(failing, fault, keep=False)
            for name in round_:
                host.track(None, name, user_id=f"person of {name}")
            assert client.get("/page/").status_code == 200

            # All that is not for the failing one arrives while it fails.
            wait_until(all_is_written)
            wait_until(lambda: all_has_arrived(healthy))
            assert accounts.read(database)[lane]["waiting"] == len(round_)
            assert not names(stand_in, failing).keys() & set(round_)

            stand_in.mend(failing)
            wait_until(lambda: all_has_arrived(failing))
        wait_until(lambda: nothing_waits(database))

    assert names(stand_in, healthy) == Counter(expected)
    for account in accounts.read(database).values():
        assert account["accepted"] == account["delivered"] == len(expected)
        assert accounts.balances(account)


def test_what_was_kept_without_an_answer_is_kept_once_where_the_receiver_can_tell(database, lanes, stand_in):
    """KISSmetrics drops the repetition, and so does Matomo for an order; other hits of Matomo count twice."""
    order = {"piwik": {"order": {"id": "7", "revenue": 12.5}}}
    stand_in.fail("kissmetrics", "reset", keep=True)
    stand_in.fail("matomo", "reset", keep=True)
    with worker(database):
        host.track(None, "paid", user_id="ada", plugins=order)
        wait_until(lambda: all(stand_in.received(provider, kept=None) for provider in stand_in.PROVIDERS))
        wait_until(lambda: len(stand_in.received("kissmetrics", kept=None)) > 1)
        stand_in.mend()
        wait_until(lambda: nothing_waits(database))

    assert len(stand_in.received("kissmetrics")) == 1
    assert [hit.sent["ec_id"] for hit in stand_in.received("matomo")] == ["7"]
    assert {lane: account["delivered"] for lane, account in accounts.read(database).items()} == {
        "kissmetrics": 1,
        "piwik": 1,
        "writer": 1,
    }


def test_what_may_have_arrived_becomes_a_dead_letter_if_the_project_says_so(database, configure, stand_in):
    configure("outbox", piwik={"URL": stand_in.matomo_url, "SITE_ID": 1, "ON_UNCERTAIN": "dead", **EAGER})
    stand_in.fail("matomo", "half")
    with worker(database):
        host.track(None, "perhaps")
        wait_until(lambda: accounts.read(database).get("piwik", {}).get("dead") == 1)

    assert names(stand_in, "matomo") == {"perhaps": 1}


@on_sqlite
@both_providers
def test_the_delay_of_the_other_lanes_does_not_change(database, configure, stand_in, failing, lane, healthy):
    """A steady flow, without a fault and through all of them; one that never answers is waited for longer than that."""
    patient = {**EAGER, "READ_TIMEOUT": 4, "TIMEOUT": 10}
    configure(
        "outbox",
        kissmetrics={"API_KEY": stand_in.KEY, "TRACKING_URL": stand_in.kissmetrics_url, **patient},
        piwik={"URL": stand_in.matomo_url, "SITE_ID": 1, "TOKEN_AUTH": stand_in.TOKEN, **patient},
    )
    tracked: dict[str, tuple[str, dt.datetime]] = {}

    def flow(phase: str) -> None:
        for number in range(12):
            name = f"{phase}-{number}"
            tracked[name] = phase, dt.datetime.now(dt.UTC)
            host.track(None, name, user_id=f"person of {name}")
            time.sleep(0.02)

    with worker(database):
        flow("warm-up")
        stand_in.wait_for(healthy, 12)
        flow("no fault")
        for fault in reversed(OUTAGES):  # "hang" is the last
            stand_in.fail(failing, fault, keep=False)
            flow(fault)
        stand_in.wait_for(healthy, len(tracked), seconds=30)
        assert not names(stand_in, failing).keys() & {name for name, (phase, _) in tracked.items() if phase == "hang"}
        stand_in.mend(failing)
        wait_until(lambda: nothing_waits(database))

    key = "_n" if healthy == "kissmetrics" else "e_a"
    delays = defaultdict(list)
    for hit in stand_in.received(healthy):
        phase, at = tracked[hit.sent[key]]
        delays[phase].append((hit.received - at).total_seconds())
    usual = median(delays.pop("no fault"))
    assert {phase: seconds for phase, found in delays.items() if (seconds := median(found)) > usual + SLACK} == {}
    assert accounts.read(database)[lane]["delivered"] == len(tracked)


@on_postgres
@both_providers
def test_what_is_refused_lies_in_dead_letters_with_the_reason_and_takes_no_others_with_it(
    database, configure, stand_in, failing, lane, healthy
):
    eager = {**EAGER, "RETRY_DELAY": 0.05, "RETRY_MAX_DELAY": 0.1, "MAX_ATTEMPTS": 5}
    configure(
        "outbox",
        kissmetrics={"API_KEY": stand_in.KEY, "TRACKING_URL": stand_in.kissmetrics_url, **eager},
        piwik={"URL": stand_in.matomo_url, "SITE_ID": 1, "TOKEN_AUTH": stand_in.TOKEN, **eager},
    )
    stand_in.fail(failing, "400", only="bad")
    with worker(database):
        with host.batch():
            for name in ("a", "b", "bad", "c", "d"):
                host.track(None, name, user_id=f"person {name}")
        wait_until(lambda: accounts.read(database).get(lane, {}).get("dead") == 1)
        wait_until(lambda: nothing_waits(database))

    assert names(stand_in, failing) == Counter("abcd")
    assert names(stand_in, healthy) == Counter(["a", "b", "bad", "c", "d"])
    [letter] = read(letters.select(letters.Selection(lanes=(lane,)), database))
    assert (letter.event_name, letter.payload["name"]) == ("bad", "bad")
    assert "answered" in letter.reason
    assert "400" in letter.reason


@on_sqlite
@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize(("provider", "lane"), [("kissmetrics", "kissmetrics"), ("matomo", "piwik")])
def test_what_retry_after_asks_for_is_waited_for(database, lanes, stand_in, provider, lane, form):
    with worker(database):
        until = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(seconds=3)
        asked = 2 if form == "seconds" else format_datetime(until, usegmt=True)
        stand_in.fail(provider, "429", times=1, retry_after=asked)
        host.track(None, "one", user_id="ada")
        first = stand_in.wait_for(provider, kept=None)[0]
        stand_in.wait_for(provider)
        wait_until(lambda: nothing_waits(database))

    [second] = stand_in.received(provider)
    if form == "seconds":
        assert (second.received - first.received).total_seconds() >= 1.9
    else:
        assert first.received < until <= second.received + dt.timedelta(seconds=0.1)
    assert accounts.read(database)[lane]["delivered"] == 1
