"""Celery's workers empty the outbox: on each broker, in each pool, told by beat."""

from __future__ import annotations

import pytest
from django.db import connections

from pluginhost import host
from pluginhost.delivery import accounts
from tests.celery.workers import Site
from tests.processes import nothing_waits, wait_until

#: Valkey and prefork are what the page about Celery shows: tests/celery/test_site.py.
POOLS = [
    pytest.param("rabbitmq", "prefork", marks=pytest.mark.rabbitmq),
    pytest.param("rabbitmq", "threads", marks=pytest.mark.rabbitmq),
    pytest.param("valkey", "solo", marks=pytest.mark.valkey),
]


@pytest.mark.postgres
@pytest.mark.django_db(databases="__all__", transaction=True)
@pytest.mark.parametrize(("kind", "pool"), POOLS)
def test_celery_s_workers_empty_the_outbox(kind, pool, request, configure, tmp_path):
    if "postgres" not in connections:
        pytest.skip("no PostgreSQL server")
    configure("outbox", writer={"PATH": str(tmp_path / "written")}, timeseries={})
    with (
        Site("postgres", request.getfixturevalue(kind)) as site,
        site.beat(),
        site.worker("--pool", pool, "--concurrency", "2") as worker,
    ):
        worker.ready()
        expected = set()
        for number in range(200):
            expected.add(f"event {number} {host.track(None, f'event {number}', using='postgres')}")
        wait_until(lambda: accounts.read("postgres").get("writer", {}).get("delivered") == 200)
        wait_until(lambda: nothing_waits("postgres"))
        assert worker.stop() == 0
        assert [line for line in worker.output.splitlines() if "ERROR" in line or "Traceback" in line] == []
    written = (tmp_path / "written").read_text().splitlines()
    assert sorted(written) == sorted(expected)
    for account in accounts.read("postgres").values():
        assert accounts.balances(account)
        assert account["delivered"] == 200
