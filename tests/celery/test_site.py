"""The page about Celery, followed: a new site with its settings, its app and its two commands."""

from __future__ import annotations

import os
import shlex
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from tests.docs_pages import DOCS, blocks
from tests.docs_project import Project
from tests.processes import wait_until

PAGE = DOCS / "howto" / "celery.md"


def shown(name: str) -> str:
    """The file of the reader's project that the page shows under this name."""
    return next(block.text for block in blocks(PAGE) if block.text.startswith(f"# {name}\n"))


@pytest.fixture
def project(tmp_path, valkey):
    project = Project(tmp_path / "site")
    project.run("python -m django startproject mysite .", "the test")
    settings = project.directory / "mysite" / "settings.py"
    added = shown("mysite/settings.py").replace("amqp://localhost", valkey)
    assert valkey in added
    more = 'INSTALLED_APPS += ["pluginhost", "pluginhost_timeseries"]\nCELERY_TASK_DEFAULT_QUEUE = "site"\n'
    settings.write_text(f"{settings.read_text()}\n{added}\n{more}")
    for name in ("mysite/celery.py", "mysite/__init__.py"):
        (project.directory / name).write_text(shown(name))
    return project


@pytest.mark.valkey
def test_the_page_s_site_delivers(project):
    project.run("python manage.py migrate -v 0", "the test")
    commands = next(block.text for block in blocks(PAGE) if block.language == "sh" and not block.skipped)
    environ = {**project.environment(), "PYTHONUNBUFFERED": "1"}
    environ.pop("PLUGINHOST_TEST_CELERY", None)
    logs = []
    running = []
    try:
        for number, command in enumerate(commands.splitlines()):
            log = (project.directory / f"log{number}").open("w+b")
            logs.append(log)
            running.append(
                subprocess.Popen(
                    [sys.executable, "-m", *shlex.split(command)],
                    cwd=project.directory,
                    env=environ,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
        assert len(running) == 2
        project.run("python manage.py shell -c \"from pluginhost import host; host.track(None, 'one')\"", "the test")

        def delivered() -> bool:
            assert all(process.poll() is None for process in running)
            with closing(sqlite3.connect(project.directory / "db.sqlite3")) as connection:
                rows = connection.execute("SELECT outcome, n FROM pluginhost_account ORDER BY outcome").fetchall()
            return rows == [("accepted", 1), ("delivered", 1)]

        wait_until(delivered)
        for process in running:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for log in logs:
            log.seek(0)
            sys.stderr.write(log.read().decode())
            log.close()


@pytest.mark.valkey
def test_an_app_that_is_configured_in_its_own_module_adds_the_entries_there(project):
    line = "app.conf.beat_schedule = {**app.conf.beat_schedule, **beat_schedule()}"
    assert line in PAGE.read_text()
    settings = project.directory / "mysite" / "settings.py"
    settings.write_text(settings.read_text().replace("CELERY_BEAT_SCHEDULE = beat_schedule()", ""))
    module = project.directory / "mysite" / "celery.py"
    module.write_text(f"{module.read_text()}\nfrom pluginhost.tasks import beat_schedule\n{line}\n")
    printed = project.run(
        'python manage.py shell -v 0 -c "from mysite import celery_app; print(sorted(celery_app.conf.beat_schedule))"',
        "the test",
    )
    assert printed.strip().splitlines()[-1] == "['pluginhost.clean default', 'pluginhost.tick default']"
