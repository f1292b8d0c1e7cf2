"""What a run of the demo needs for itself: a directory that no other demo uses, empty, and a free port."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from typing import TextIO

from config.state import DATABASE, LOCK, LOGS, MONGO_DATA, MONGO_URI, STAND_IN_URL, STATE
from processes import DemoError, free_port, is_free

#: Seconds that a demo which was killed has to end its processes.
PATIENCE = 15.0
#: The port of the shop where nothing else is said.
PORT = 8000


def claim() -> TextIO:
    """Lock the demo's directory for as long as the returned file is open, here or in the guard.

    Raises ``DemoError`` if another demo has it, or if it is somebody else's.
    """
    try:
        STATE.mkdir(parents=True, exist_ok=True)
        if not LOCK.exists() and any(STATE.iterdir()):
            raise DemoError(f"{STATE} holds what no demo has put there. Choose another place: DEMO_DIR=/tmp/demo")
        lock = LOCK.open("a+")
    except OSError as error:
        raise DemoError(f"The demo cannot keep its state in {STATE}: {error.strerror}. Set DEMO_DIR.") from error
    end = time.monotonic() + PATIENCE
    while not _locked(lock):
        holder = _holder(lock)
        if _runs(holder) or time.monotonic() > end:
            raise DemoError(
                f"Another demo (process {holder}) serves from {STATE}. End it with Ctrl-C there, or give this"
                f" one a place of its own: DEMO_DIR=/tmp/demo DEMO_PORT={_suggestion(PORT)} make demo"
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
    """Delete what an earlier run left in the directory that was claimed."""
    for suffix in ("", "-journal", "-shm", "-wal"):
        DATABASE.with_name(DATABASE.name + suffix).unlink(missing_ok=True)
    for file in (MONGO_URI, STAND_IN_URL):
        file.unlink(missing_ok=True)
    for directory in (MONGO_DATA, LOGS):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()


def web_port() -> int:
    """The port of the shop. Raises ``DemoError`` if it is none, or busy."""
    given = os.environ.get("DEMO_PORT") or str(PORT)
    if not given.isdigit() or not 0 < int(given) < 65536:
        raise DemoError(f"DEMO_PORT is {given!r}; it must be a number from 1 to 65535.")
    port = int(given)
    try:
        free = is_free(port)
    except PermissionError as error:
        suggestion = _suggestion(PORT)
        raise DemoError(
            f"Port {port} may not be used: {error.strerror}. Try DEMO_PORT={suggestion} make demo"
        ) from error
    if not free:
        raise DemoError(f"Port {port} is busy. Choose another: DEMO_PORT={_suggestion(port + 1)} make demo")
    return port


def _suggestion(least: int) -> int:
    """A port that is free, as is the next one, for the stand-in; if possible not far above ``least``."""
    near = range(max(least, 1024), min(least + 100, 65535))
    return next((port for port in near if is_free(port) and is_free(port + 1)), None) or free_port()


def stand_in_port(web_port: int) -> int:
    """The port next to the shop's if that is free, else another one."""
    port = web_port + 1
    return port if port < 65536 and is_free(port) else free_port()
