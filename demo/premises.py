"""What a run of the demo needs for itself: a directory that no other demo uses, empty, and a free port."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from typing import TYPE_CHECKING, TextIO

from config.state import DATABASE, LOGS, MONGO_DATA, MONGO_URI, STAND_IN_URL
from processes import DemoError, free_port, is_free

if TYPE_CHECKING:
    from pathlib import Path

#: Seconds that a demo which was killed has to end its processes.
PATIENCE = 15.0


def claim(directory: Path) -> TextIO:
    """Lock the directory for as long as the returned file is open, here or in the guard."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("a+")
    except OSError as error:
        raise DemoError(f"The demo cannot keep its state in {directory}: {error.strerror}. Set DEMO_DIR.") from error
    end = time.monotonic() + PATIENCE
    while not _locked(lock):
        holder = _holder(lock)
        if _runs(holder) or time.monotonic() > end:
            raise DemoError(
                f"Another demo (process {holder}) serves from {directory}. End it with Ctrl-C there,"
                " or give this one a place of its own: DEMO_DIR=/tmp/demo DEMO_PORT=8001 make demo"
            )
        time.sleep(0.2)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(lock: TextIO) -> int | None:
    lock.seek(0)
    text = lock.read()
    return int(text) if text.isdigit() else None


def _runs(pid: int | None) -> bool:
    try:
        os.kill(pid or 0, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid is not None


def empty() -> None:
    """Delete what an earlier run left, by name: the directory may be one that somebody uses."""
    for suffix in ("", "-journal", "-shm", "-wal"):
        DATABASE.with_name(DATABASE.name + suffix).unlink(missing_ok=True)
    for file in (MONGO_URI, STAND_IN_URL):
        file.unlink(missing_ok=True)
    for directory in (MONGO_DATA, LOGS):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()


def web_port() -> int:
    """The port of the shop. Raises ``DemoError`` if it is none, or busy."""
    given = os.environ.get("DEMO_PORT") or "8000"
    if not given.isdigit() or not 0 < int(given) < 65536:
        raise DemoError(f"DEMO_PORT is {given!r}; it must be a number from 1 to 65535.")
    port = int(given)
    try:
        free = is_free(port)
    except PermissionError as error:
        raise DemoError(f"Port {port} may not be used: {error.strerror}. Try DEMO_PORT=8000 make demo") from error
    if not free:
        raise DemoError(f"Port {port} is busy. Choose another: DEMO_PORT={min(port + 1, 65535)} make demo")
    return port


def stand_in_port(web_port: int) -> int:
    """The port next to the shop's if that is free, else another one."""
    port = web_port + 1
    return port if port < 65536 and is_free(port) else free_port()
