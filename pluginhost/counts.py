"""What this process counted at the call, since it started. The lanes' own accounts are in the database."""

from __future__ import annotations

import os
from collections import Counter
from threading import Lock

from pluginhost import metrics

_counts: Counter[str] = Counter()
_lock = Lock()


def count(outcome: str, n: int = 1) -> None:
    """Add to ``accepted``, ``filtered``, ``invalid``, ``lost`` or ``spilled``."""
    with _lock:
        _counts[outcome] += n
    metrics.instruments()  # they read the counts, from the moment on at which the process uses OpenTelemetry


def snapshot() -> dict[str, int]:
    with _lock:
        return dict(_counts)


def _renew_lock() -> None:
    """In a child: the thread that held it at the fork is not there to release it."""
    global _lock
    _lock = Lock()


os.register_at_fork(after_in_child=_renew_lock)
