"""A hook that hangs in a Celery worker holds up no other lane, and what storing waits for is not lost."""

from __future__ import annotations

import time

import pytest
from django.db import connections, transaction

from pluginhost import host
from pluginhost.delivery import accounts
from pluginhost.models import Lane
from tests.celery.killing import nudging
from tests.celery.workers import Site
from tests.processes import wait_until

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.django_db(databases="__all__", transaction=True),
    pytest.mark.skipif("'postgres' not in __import__('django.db').db.connections", reason="no PostgreSQL server"),
]


def hanging(configure, tmp_path, broker):
    """A site on which one lane hangs at its first event."""
    configure(
        "outbox",
        stuck={
            "PLUGIN": "writer",
            "PATH": str(tmp_path / "stuck"),
            "TIMEOUT": 0.3,
            "BATCH_SIZE": 1,
            "RETRY_DELAY": 600,
        },
        well={"PLUGIN": "writer", "PATH": str(tmp_path / "well")},
    )
    site = Site("postgres", broker)
    site.environment["PLUGINHOST_TEST_GRACE"] = "0.3"
    return site


def delivered(lane):
    return accounts.read("postgres").get(lane, {}).get("delivered", 0)


def trouble():
    return Lane.objects.using("postgres").filter(name="stuck").exclude(trouble="")


@pytest.mark.rabbitmq
def test_in_a_prefork_pool_the_child_is_ended_and_another_takes_its_place(configure, tmp_path, rabbitmq):
    with (
        hanging(configure, tmp_path, rabbitmq) as site,
        site.worker("--concurrency", "2") as worker,
        nudging(site),
    ):
        host.track(None, "hang", using="postgres", plugins={"well": False})
        wait_until(lambda: trouble().exists())
        for number in range(5):
            host.track(None, f"event {number}", using="postgres")
        wait_until(lambda: delivered("well") == delivered("stuck") == 5)
        assert worker.process.poll() is None
        assert "the hook of stuck hangs" in worker.output


@pytest.mark.valkey
@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_in_other_pools_the_worker_ends_for_its_supervisor(pool, configure, tmp_path, valkey):
    with hanging(configure, tmp_path, valkey) as site, site.worker("--pool", pool) as worker, nudging(site):
        host.track(None, "hang", using="postgres")
        assert worker.process.wait(30) == 70
        assert "the hook hung" in trouble().get().trouble


@pytest.mark.rabbitmq
def test_what_waits_for_the_database_is_stored_later_whatever_limits_the_site_has_set(configure, tmp_path, rabbitmq):
    configure("outbox", writer={"PATH": str(tmp_path / "written")})
    envelope = {"version": 1, "envelope_id": "1f0d3d6c-5c8c-4b6e-9a53-5f1a6a2a9c11", "lanes": "writer", "n": 1}
    site = Site("postgres", rabbitmq, task_time_limit=1, task_soft_time_limit=1, task_acks_late=False)
    with site, site.worker("--concurrency", "1") as worker:
        worker.ready()
        with transaction.atomic("postgres"), connections["postgres"].cursor() as cursor:
            cursor.execute("LOCK TABLE pluginhost_envelope IN ACCESS EXCLUSIVE MODE")
            site.app.send_task("pluginhost.ingest", kwargs={**envelope, "payload": "[1]", "using": "default"})
            wait_until(lambda: site.waiting() == 0)
            time.sleep(2.5)  # longer than the site's limits
        wait_until(lambda: accounts.read("postgres").get("writer", {}).get("accepted") == 1)
        assert worker.stop() == 0
        assert site.waiting() == 0
