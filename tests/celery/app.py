"""The Celery app of the tests' site in a process of its own; the environment says where its broker is, as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

from celery import Celery
from celery.signals import worker_init, worker_ready

from pluginhost import host
from pluginhost.tasks import beat_schedule

app = Celery("tests")
app.conf.update(
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
    beat_schedule=beat_schedule(period=0.2),
    **json.loads(os.environ["PLUGINHOST_TEST_CELERY"]),
)
app.autodiscover_tasks()


@app.task(name="tests.order")
def order(number: int) -> None:
    """A task of the site's own that tracks, and then notes that its calls have returned."""
    host.track(None, "ordered", {"number": number})
    with host.batch():
        host.track(None, "packed", {"number": number})
        host.track(None, "sent", {"number": number})
    with Path(os.environ["PLUGINHOST_TEST_NOTES"]).open("a") as notes:
        notes.write(f"{number}\n")


@worker_init.connect
def hurry(**_: object) -> None:
    from pluginhost.workers import lane_thread

    if grace := os.environ.get("PLUGINHOST_TEST_GRACE"):
        lane_thread.GRACE = float(grace)
        lane_thread.POLL_LAST = 0.1


@worker_ready.connect
def tell(**_: object) -> None:
    print("worker is ready", flush=True)  # noqa: T201
