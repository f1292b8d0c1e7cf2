"""The Celery of the site, and the tasks that a site without the host would send an event to."""

from __future__ import annotations

import json
import os
from functools import cache
from typing import Any

from celery import Celery

app = Celery("benchmarks", broker=os.environ["BENCHMARKS_BROKER"])
app.conf.update(
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    **json.loads(os.environ.get("BENCHMARKS_CELERY", "{}")),
)
if json.loads(os.environ["BENCHMARKS_PLUGINHOST"]) is not None:  # the host is installed
    from pluginhost.tasks import beat_schedule

    app.conf.beat_schedule = beat_schedule()
    app.autodiscover_tasks(["pluginhost"])


@app.task
def deliver(user_id: str, name: str, properties: dict[str, Any], context: dict[str, Any]) -> None: ...


@app.task
def note(user_id: str, name: str, properties: dict[str, Any], context: dict[str, Any]) -> None:  # noqa: ARG001
    """Does nothing, and leaves a byte behind, so that it can be counted."""
    os.write(_notes(), b".")


@cache
def _notes() -> int:
    """What is added to this file is whole, however many processes write."""
    return os.open(os.environ["BENCHMARKS_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
