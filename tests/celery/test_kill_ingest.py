"""kill -9 of the workers that store what RabbitMQ carries: each event arrives once, and is counted once."""

from __future__ import annotations

import pytest

from pluginhost import counts
from tests import killing
from tests.celery.killing import Killer
from tests.celery.workers import Site, in_force
from tests.processes import nothing_waits, wait_until
from tests.test_kill import Worker

EVENTS, KILLS = killing.size(events=600, kills=3)


@pytest.mark.kill
@pytest.mark.mongo
@pytest.mark.postgres
@pytest.mark.rabbitmq
@pytest.mark.timeout(1200)
@pytest.mark.django_db(databases="__all__", transaction=True)
def test_what_rabbitmq_carries_outlives_the_workers_that_fetch_it(configure, mongodb, rabbitmq):
    database = killing.need_postgres()
    killing.forget_all(mongodb)
    with Site(database, rabbitmq) as site, in_force(site):
        # The budget is so large that nothing is spilled: RabbitMQ has to carry it all.
        configure("celery", INGEST_QUEUE=site.queue, BROKER_BUDGET=30, **killing.plugins(mongodb))
        spilled = counts.snapshot().get("spilled", 0)
        outbox = Worker()
        try:
            with (
                killing.killing(
                    database,
                    lambda: site.worker("--concurrency", "2"),
                    events=EVENTS,
                    kills=KILLS,
                    workers=1 if KILLS < 10 else 2,
                    killer=Killer,
                ) as traffic,
                site.worker("--concurrency", "2") as last,
            ):
                wait_until(lambda: len(killing.stored_in(mongodb)) == len(traffic.ids), 120)
                assert last.stop() == 0  # what it had in hand is stored, or with RabbitMQ
            wait_until(lambda: nothing_waits(database), 120)
        finally:
            outbox.kill()
        assert counts.snapshot().get("spilled", 0) == spilled
    killing.assert_all_arrived_once(database, mongodb, traffic, carried=True)
