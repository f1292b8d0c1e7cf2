"""Starts Celery's own commands as processes, as a user would, each with a queue that no other test has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import Celery, _state

from tests.processes import ROOT, environment, wait_until
from tests.servers import folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType


class Site:
    """A Celery app on one broker. ``app`` sends from the test's own process."""

    def __init__(self, database: str, broker: str, **conf: Any) -> None:
        self.database = database
        self.environment: dict[str, str] = {}
        """More of it, for the processes."""
        self.conf = {"broker_url": broker, "task_default_queue": f"test-{uuid.uuid4().hex[:12]}", **conf}
        self.app = Celery("tests", set_as_current=False)
        self.app.conf.update(self.conf)
        self._asking: Any = None

    @property
    def queue(self) -> str:
        return str(self.conf["task_default_queue"])

    def worker(self, *arguments: str) -> Process:
        """``celery worker``. The queue is the default one, unless ``-Q`` says otherwise."""
        quiet = ["--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        return Process(self, "worker", *quiet, "-n", f"{uuid.uuid4().hex[:12]}@test", *arguments)

    def beat(self) -> Process:
        """``celery beat``."""
        return Process(self, "beat", "--loglevel", "WARNING", "-s", tempfile.mktemp(prefix="beat-", dir=folder()))

    def send(self, task: str, *args: Any, **options: Any) -> None:
        self.app.send_task(task, args, ignore_result=True, **options)

    def waiting(self, queue: str | None = None) -> int:
        """Messages in a queue that no worker has fetched."""
        channel = self._connection().default_channel
        return int(channel.queue_declare(queue or self.queue, durable=True, auto_delete=False).message_count)

    def unacknowledged(self) -> int:
        """Messages that a worker on Valkey has fetched and not acknowledged."""
        return int(self._connection().default_channel.client.hlen("unacked"))

    def _connection(self) -> Any:
        """One for all questions: a broker takes its time to open one."""
        if self._asking is None:
            self._asking = self.app.connection_for_read()
        return self._asking

    def __enter__(self) -> Site:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._asking is not None:
            self._asking.release()
        self.app.close()


@contextmanager
def in_force(site: Site) -> Iterator[None]:
    """The site's app is this thread's, as it is for the code of a project."""
    before = _state._tls.current_app
    site.app.set_current()
    try:
        yield
    finally:
        _state._tls.current_app = before


class Process:
    """One process with its children. What it prints goes into a file: a full pipe would stop it."""

    def __init__(self, site: Site, *arguments: str) -> None:
        number, name = tempfile.mkstemp(prefix="celery-", dir=folder())
        os.close(number)
        self.path = Path(name)
        with self.path.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "tests.celery.app", "--skip-checks", *arguments],
                env={
                    **environment(site.database),
                    "PLUGINHOST_TEST_CELERY": json.dumps(site.conf),
                    **site.environment,
                },
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.path.read_text(errors="replace")

    def ready(self) -> Process:
        """Wait until the worker fetches messages."""

        def told() -> bool:
            assert self.process.poll() is None, self.output
            return "worker is ready" in self.output

        wait_until(told)
        return self

    def children(self) -> list[int]:
        """The processes of its pool (Linux)."""
        try:
            text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        except OSError:
            return []
        return [int(each) for each in text.split()]

    def stop(self, seconds: float = 40) -> int:
        """SIGTERM: a warm shutdown. Returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """kill -9, with its children."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if error is not None:
            sys.stderr.write(self.output)
