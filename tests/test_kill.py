"""kill -9 of workers at random moments while events flow: each arrives once, and each is counted once."""

from __future__ import annotations

import pytest

from tests import killing
from tests.processes import end, nothing_waits, start, wait_until

EVENTS, KILLS = killing.size(events=1_500, kills=5)


class Worker:
    """``manage.py pluginhost worker``."""

    def __init__(self) -> None:
        self.process = start("postgres", "worker")

    def ready(self) -> Worker:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("worker ")
        return self

    def kill(self) -> None:
        end(self.process)


@pytest.mark.kill
@pytest.mark.mongo
@pytest.mark.postgres
@pytest.mark.timeout(900)
@pytest.mark.django_db(databases="__all__", transaction=True)
def test_killed_workers_lose_nothing_and_count_nothing_twice(configure, mongodb):
    database = killing.need_postgres()
    configure("outbox", **killing.plugins(mongodb))
    killing.forget_all(mongodb)
    with killing.killing(database, Worker, events=EVENTS, kills=KILLS) as traffic:
        survivor = Worker()
        try:
            wait_until(lambda: nothing_waits(database), 120)
        finally:
            survivor.kill()
    killing.assert_all_arrived_once(database, mongodb, traffic)
