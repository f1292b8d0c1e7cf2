"""Starts, watches and ends the processes of the demo."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HERE = Path(__file__).resolve().parent
GUARD = HERE / "guard.py"
#: Seconds that a process has to end by itself.
PATIENCE = 10.0
#: Lines of a log that are shown when its process has failed.
TAIL = 15


class DemoError(Exception):
    """What went wrong, in words for who started the demo."""


class Interrupted(Exception):
    """Ctrl-C, SIGTERM or a closed terminal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Processes:
    """The processes that were started, each in a process group and with a log of its own.

    Signals only leave a note, which ``look`` turns into ``Interrupted``: an exception
    at a random place could lose a process that has just been started.
    """

    def __init__(self, logs: Path, lock: int) -> None:
        """``lock`` is the file that keeps other demos away: the guard holds it as long as a process may live."""
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._signal: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)
        self._guard = subprocess.Popen(
            [sys.executable, str(GUARD)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[lock],
        )

    def _note(self, number: int, _frame: object) -> None:
        self._signal = number

    def start(self, name: str, command: Sequence[str | Path]) -> None:
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=HERE,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        self._running[name] = process
        self._tell_guard(f"+{process.pid}")

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def look(self) -> None:
        """Raise ``Interrupted`` if we are to end, and ``DemoError`` if a process has ended by itself."""
        if self._signal is not None:
            raise Interrupted(self._signal)
        for name, process in self._running.items():
            if process.poll() is not None:
                raise DemoError(f"{name} has ended with status {process.returncode}. {self._tail(name)}")

    def wait_until(self, ready: Callable[[], bool], seconds: float = float("inf")) -> bool:
        """Wait, and go on looking. False if the time is over first."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            if ready():
                return True
            time.sleep(0.1)
        return False

    def wait_for_port(self, name: str, port: int) -> None:
        if not self.wait_until(lambda: listens(port), 30):
            raise DemoError(f"{name} does not listen on port {port}. {self._tail(name)}")

    def stop(self) -> None:
        """End what was started, the latest first, whatever signals arrive meanwhile."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for process in reversed(self._running.values()):
            _end(process)
            self._tell_guard(f"-{process.pid}")
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def _tell_guard(self, line: str) -> None:
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # without the guard we still end everything ourselves
            self._guard.stdin.write(f"{line}\n".encode())

    def _tail(self, name: str) -> str:
        lines = self.log(name).read_text(errors="replace").splitlines()[-TAIL:]
        return "\n    ".join([f"The end of {self.log(name)}:", *lines])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            continue


def is_free(port: int) -> bool:
    """Whether a server may listen there. Raises ``PermissionError`` if it is not for us."""
    try:
        with socket.socket() as probe:
            # As servers do: a connection that is being closed holds no port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except PermissionError:
        raise
    except OSError:
        return False
    return not listens(port)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
