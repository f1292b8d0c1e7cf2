"""A provider that fails holds up nobody: no other lane, no page; and what it missed arrives when it is back."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from demo.standin import FAULTS, StandIn
from pluginhost import host
from pluginhost.delivery import accounts
from tests.processes import nothing_waits, wait_until, worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.django_db(databases="__all__", transaction=True)]

#: A lane that tries again soon, with time-outs that a test can wait for.
EAGER = {"RETRY_DELAY": 0.2, "RETRY_MAX_DELAY": 0.4, "READ_TIMEOUT": 0.5}


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


@pytest.mark.parametrize(
    ("failing", "lane", "healthy"), [("kissmetrics", "kissmetrics", "matomo"), ("matomo", "piwik", "kissmetrics")]
)
def test_a_provider_that_fails_holds_up_nobody(database, lanes, stand_in, client, failing, lane, healthy):
    # Of KISSmetrics' answer only the beginning counts: one that is broken off is no failure.
    faults = [fault for fault in FAULTS if (failing, fault) != ("kissmetrics", "half")]
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


@pytest.mark.parametrize(("provider", "lane"), [("kissmetrics", "kissmetrics"), ("matomo", "piwik")])
def test_what_retry_after_asks_for_is_waited_for(database, lanes, stand_in, provider, lane):
    stand_in.fail(provider, "429", times=1, retry_after=2)
    with worker(database):
        host.track(None, "one", user_id="ada")
        first = stand_in.wait_for(provider, kept=None)[0]
        stand_in.wait_for(provider)
        wait_until(lambda: nothing_waits(database))

    [second] = stand_in.received(provider)
    assert (second.received - first.received).total_seconds() >= 1.9
    assert accounts.read(database)[lane]["delivered"] == 1
