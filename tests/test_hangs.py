"""A hook that hangs, from the first worker to the next: nothing else is late, and nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pluginhost import host
from pluginhost.delivery import accounts
from pluginhost.models import Delivery, Lane
from tests.fixtures import on_postgres
from tests.processes import nothing_waits, wait_until, worker

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


def names(path: Path) -> list[str]:
    return [line.rpartition(" ")[0] for line in path.read_text().splitlines()] if path.exists() else []


@on_postgres
def test_after_a_hook_that_hung_the_next_worker_goes_on(database, configure, tmp_path):
    hung, quick = tmp_path / "hung", tmp_path / "quick"
    configure(
        "outbox",
        writer={"PATH": str(hung), "TIMEOUT": 2},
        quick={"PLUGIN": "writer", "PATH": str(quick)},
    )
    host.track(None, "hang", plugins={"quick": False})
    with worker(database) as process:
        wait_until(lambda: Delivery.objects.exclude(token=None).filter(lane="writer").exists())
        others = [f"quick {number}" for number in range(5)]
        for name in others:
            host.track(None, name)
            wait_until(lambda name=name: name in names(quick))
        assert process.poll() is None, "the others arrive while it hangs"
        assert process.wait(timeout=30) == 70
    assert Lane.objects.get(name="writer").trouble
    assert accounts.read(database)["writer"]["waiting"] == 6

    hung.with_suffix(".mended").touch()
    with worker(database):
        wait_until(lambda: nothing_waits(database))
        wait_until(lambda: not Lane.objects.filter(name="writer").exclude(trouble="").exists())
    assert sorted(names(hung)) == ["hang", *others]
    assert names(quick) == others
    assert all(accounts.balances(account) for account in accounts.read(database).values())
