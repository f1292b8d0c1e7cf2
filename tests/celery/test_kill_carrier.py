"""kill -9 of the workers that store what Valkey carries: at most one envelope is lost with each of them.

A worker asks Valkey for the next message (BRPOP) while it has as many in hand as it
may. The answer is out of the queue, and no other worker knows of it.
"""

from __future__ import annotations

import sys

import pytest

from tests import killing
from tests.celery.killing import Killer
from tests.celery.workers import Site, in_force
from tests.processes import nothing_waits, wait_until
from tests.test_kill import Worker

EVENTS, KILLS = killing.size(events=600, kills=3)
#: What a dead worker had fetched is given out again soon, not after an hour. Kombu 5.7 or newer also looks soon.
SOON = {
    "visibility_timeout": 3,
    "unacked_mutex_expire": 3,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}


@pytest.mark.kill
@pytest.mark.mongo
@pytest.mark.postgres
@pytest.mark.valkey
@pytest.mark.timeout(1200)
@pytest.mark.django_db(databases="__all__", transaction=True)
def test_what_valkey_carries_is_lost_one_envelope_a_kill_at_most(configure, mongodb, valkey):
    database = killing.need_postgres()
    killing.forget_all(mongodb)
    with Site(database, valkey, broker_transport_options=SOON) as site, in_force(site):
        # The budget is so large that nothing is spilled: Valkey has to carry it all.
        configure("celery", INGEST_QUEUE=site.queue, BROKER_BUDGET=30, **killing.plugins(mongodb))
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
                site.worker("--concurrency", "2"),
            ):
                wait_until(lambda: site.waiting() == site.unacknowledged() == 0, 300)
            wait_until(lambda: nothing_waits(database), 120)
        finally:
            outbox.kill()
    lost = set(traffic.ids) - set(killing.stored_in(mongodb))
    lost_envelopes = [flush for flush in traffic.flushes if flush & lost]
    sys.stdout.write(f"{traffic.workers_killed} workers killed, {len(lost_envelopes)} envelopes lost\n")  # see -rP
    assert all(flush <= lost for flush in lost_envelopes)
    assert len(lost_envelopes) <= traffic.workers_killed
    killing.assert_all_arrived_once(database, mongodb, traffic.without(lost), carried=True)
