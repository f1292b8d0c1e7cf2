"""Starts the site's own commands as processes of their own, as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import connections

from pluginhost.delivery import accounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]


def environment(database: str) -> dict[str, str]:
    """What a process needs to work on the test's database with the test's plugins."""
    given = connections[database].settings_dict
    chosen = {key: given[key] for key in ("ENGINE", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")}
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.live_settings",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "installed"), os.environ.get("PYTHONPATH", "")]),
        "PLUGINHOST_TEST_DATABASE": json.dumps({**chosen, "NAME": str(given["NAME"])}),
        "PLUGINHOST_TEST_SETTING": json.dumps({**settings.PLUGINHOST, "TRANSPORT": "outbox", "TEST": {}}),
    }


def start(database: str, *arguments: str, **keywords: Any) -> subprocess.Popen[str]:
    """Start ``manage.py pluginhost ...``."""
    return subprocess.Popen(
        [sys.executable, "-m", "django", "pluginhost", *arguments],
        env=environment(database),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **keywords,
    )


def end(process: subprocess.Popen[str]) -> str:
    """Kill it if it still lives; what it printed."""
    process.kill()
    return process.communicate()[0]


@contextmanager
def worker(database: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A worker that has begun to work."""
    process = start(database, "worker", *arguments)
    try:
        assert process.stdout is not None
        printed = []
        for line in process.stdout:  # warnings of the checks come first
            printed.append(line)
            if line.startswith("worker "):
                break
        else:
            raise AssertionError("".join(printed))
        yield process
    finally:
        end(process)


def wait_until(reached: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for it. Raises ``AssertionError`` after so many seconds."""
    limit = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < limit, f"not reached within {seconds} s"
        time.sleep(0.05)


def nothing_waits(database: str) -> bool:
    return all(account["waiting"] == 0 for account in accounts.read(database).values())
