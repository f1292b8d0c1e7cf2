"""The processes that empty the outbox: a worker of our own, a drain, and what Celery's tasks do."""

from __future__ import annotations
