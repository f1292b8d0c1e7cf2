"""The task that a site with Celery would send an event to."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

app = Celery("benchmarks", broker=os.environ["BENCHMARKS_BROKER"])
app.conf.task_ignore_result = True


@app.task
def deliver(user_id: str, name: str, properties: dict[str, Any], context: dict[str, Any]) -> None: ...
