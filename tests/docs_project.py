"""Follows a page: writes its files, runs its commands and compares what they print, in a project of its own."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

from tests.docs_pages import ROOT, blocks
from tests.servers import free_port, wait_for_port

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The address that the pages tell their readers to ask.
ADDRESS = "http://127.0.0.1:8000"
BIN = Path(sys.executable).parent


class Project:
    """A directory, in which commands run as they would for a reader."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.installed = directory.with_name(f"{directory.name}-installed")
        self.installed.mkdir(parents=True, exist_ok=True)
        directory.mkdir(exist_ok=True)
        self.paths = [str(self.installed)]
        self.servers: list[subprocess.Popen] = []
        self.port = 0
        self.output = ""
        for package in ("kissmetrics", "mongo", "piwik", "timeseries"):
            if find_spec(f"pluginhost_{package}") is None or not _is_installed(f"pluginhost-{package}"):
                self.install(ROOT / "plugins" / package)

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        return {
            **kept,
            "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', '')}",
            "PYTHONPATH": os.pathsep.join([*self.paths, str(ROOT)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DJANGO_COLORS": "nocolor",
        }

    def install(self, source: Path) -> None:
        """What ``pip install -e`` does, as far as an interpreter sees it, without a network."""
        data = tomllib.loads((source / "pyproject.toml").read_text())["project"]
        name = data["name"].replace("-", "_")
        info = self.installed / f"{name}-{data['version']}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {data['name']}\nVersion: {data['version']}\n")
        lines = []
        for group, entries in data.get("entry-points", {}).items():
            lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(lines))
        self.paths.insert(0, str(source))

    def follow(self, page: Path) -> None:
        """All of its files and commands, in their order."""
        for block in blocks(page):
            if block.skipped:
                continue
            if block.file:
                self.write(*block.file, block.text)
            elif block.language == "sh":
                self.output = "".join(self.run(line, str(block)) for line in commands(block.text))
            elif block.language == "text":
                self.compare(block.text, str(block))

    def write(self, name: str, append: bool, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.read_text() + "\n\n" + text if append else text)

    def run(self, command: str, where: str) -> str:
        """One command. ``pip``, ``curl`` and what goes on for ever are done in our own way."""
        words = shlex.split(command, comments=True)
        if words[:4] == ["python", "-m", "pip", "install"]:
            self.pip_install(words[4:], where)
            return ""
        if words[:3] in (["python", "manage.py", "runserver"], ["python", "manage.py", "pluginhost"]) and (
            words[2] == "runserver" or words[3:] == ["worker"]
        ):
            self.serve(words, where)
            return ""
        if words[0] == "curl":
            with urlopen(words[-1].replace(ADDRESS, f"http://127.0.0.1:{self.port}"), timeout=30) as response:
                return response.read().decode() + "\n"
        if words[0] == "cd":
            self.directory /= words[1]
            return ""
        return self.check_run(["sh", "-e", "-c", command], where)

    def check_run(self, arguments: list[str], where: str) -> str:
        done = subprocess.run(
            arguments, cwd=self.directory, env=self.environment(), capture_output=True, text=True, timeout=120
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, f"{where}: {arguments[-1]} ended with {done.returncode}:\n{output}"
        return output

    def pip_install(self, names: Iterable[str], where: str) -> None:
        """Nothing is fetched: the packages are here, or are those of this repository, or of the page itself."""
        for name in names:
            if name.startswith("../pluginhost"):
                source = ROOT / name.removeprefix("../pluginhost").lstrip("/")
                assert (source / "pyproject.toml").exists(), f"{where}: there is no package in {name}"
            elif name.startswith("./"):
                self.install(self.directory / name)
            elif not name.startswith("-"):
                assert _is_installed(re.split(r"[<>=\[]", name)[0]), f"{where}: {name} is not known to the tests"

    def serve(self, words: list[str], where: str) -> None:
        """Start it, and leave it running until the end."""
        waits = words[2] == "runserver"
        if waits:
            self.port = free_port()
            words = [*words, "--noreload", f"127.0.0.1:{self.port}"]
        with (self.installed / f"{words[2]}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *words[1:]], cwd=self.directory, env=self.environment(), stdout=log, stderr=log
            )
        self.servers.append(process)
        if waits:
            wait_for_port(self.port, process)

    def compare(self, expected: str, where: str) -> None:
        """Each line that a page shows is printed; ``…`` stands for what differs from one reader to another."""
        printed = [line.strip() for line in self.output.splitlines()]
        for line in filter(None, (line.strip() for line in expected.splitlines())):
            pattern = ".*".join(re.escape(part) for part in line.split("…"))
            assert any(re.fullmatch(pattern, each) for each in printed), f"{where}: no {line!r} in:\n{self.output}"

    def wait_for(self, command: str, text: str, seconds: float = 30) -> str:
        """Run a command until it prints ``text``."""
        end = time.monotonic() + seconds
        while text not in (output := self.run(command, "the test")):
            assert time.monotonic() < end, f"no {text!r} in:\n{output}"
            time.sleep(0.1)
        return output

    def stop(self) -> None:
        for process in self.servers:
            process.send_signal(signal.SIGTERM)
        for process in self.servers:
            process.wait(40)


def commands(text: str) -> list[str]:
    """The commands of a block: a line each, but for those that a backslash carries on."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _is_installed(distribution: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
