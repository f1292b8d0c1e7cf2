"""kill -9 of Celery's workers that empty the outbox, told to look by Valkey."""

from __future__ import annotations

import pytest

from tests import killing
from tests.celery.killing import kill_drainers
from tests.celery.workers import Site

EVENTS, KILLS = killing.size(events=600, kills=3)


@pytest.mark.kill
@pytest.mark.mongo
@pytest.mark.postgres
@pytest.mark.valkey
@pytest.mark.timeout(1200)
@pytest.mark.django_db(databases="__all__", transaction=True)
def test_killed_celery_workers_lose_nothing_and_count_nothing_twice(configure, mongodb, valkey):
    configure("outbox", **killing.plugins(mongodb, timeout=1))
    with Site(killing.need_postgres(), valkey) as site:
        kill_drainers(site, mongodb, EVENTS, KILLS)
