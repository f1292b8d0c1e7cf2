"""Events that are tracked in tasks of the site's own, in the children of a prefork pool: none is lost at SIGTERM."""

from __future__ import annotations

import json

import pytest
from django.conf import settings
from django.db import connections

from pluginhost import host
from pluginhost.delivery import accounts
from pluginhost.models import Envelope
from pluginhost.workers.worker import drain
from tests.celery.workers import Site
from tests.processes import wait_until
from tests.samples import Recorder

TASKS = 90


@pytest.mark.postgres
@pytest.mark.rabbitmq
@pytest.mark.django_db(databases="__all__", transaction=True)
@pytest.mark.parametrize("transport", ["outbox", "celery"])
def test_what_tasks_track_survives_a_warm_shutdown(transport, configure, rabbitmq, tmp_path):
    if "postgres" not in connections:
        pytest.skip("no PostgreSQL server")
    configure("outbox", recorder={})
    # Each process serves few tasks, so that children come and go.
    with Site("postgres", rabbitmq, worker_max_tasks_per_child=15, worker_prefetch_multiplier=2) as site:
        tracking = {**settings.PLUGINHOST, "TRANSPORT": transport, "INGEST_QUEUE": f"{site.queue}-in", "TEST": {}}
        site.environment["PLUGINHOST_TEST_SETTING"] = json.dumps(tracking)
        site.environment["PLUGINHOST_TEST_NOTES"] = str(tmp_path / "notes")
        for number in range(TASKS):
            site.send("tests.order", number)
        with site.worker("--concurrency", "3") as worker:
            worker.ready()
            wait_until(lambda: site.waiting() < TASKS / 2)
            assert worker.stop() == 0
            assert [line for line in worker.output.splitlines() if "ERROR" in line or "Traceback" in line] == []
        done = sorted(int(line) for line in (tmp_path / "notes").read_text().split())
        assert done
        if transport == "celery":
            with site.worker("--pool", "threads", "-Q", f"{site.queue}-in") as worker:
                # Two a task. An empty queue says less: what a worker has not read yet goes back when it stops.
                wait_until(lambda: Envelope.objects.using("postgres").count() == 2 * len(done))
                assert worker.stop() == 0
    drain(host.registry.runners, "postgres")
    for name in ("ordered", "packed", "sent"):
        events = [event for event in Recorder.seen["recorder"] if event.name == name]
        assert sorted(event.properties["number"] for event in events) == done
    assert accounts.read("postgres")["recorder"]["delivered"] == 3 * len(done)
