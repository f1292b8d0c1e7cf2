"""Packages as a user installs them: with pip, into an environment that has nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import venv
from typing import TYPE_CHECKING

import pytest

from tests.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.install, pytest.mark.timeout(300)]

SETTINGS = """
from pathlib import Path
HERE = Path(__file__).parent
SECRET_KEY = "test"
DEBUG = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "site_urls"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "pluginhost", "pluginhost_timeseries"]
MIDDLEWARE = ["pluginhost.middleware.TrackerMiddleware"]
DATABASES = {"default": {
    "ENGINE": "django.db.backends.sqlite3", "NAME": HERE / "site.sqlite3",
    "OPTIONS": {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL;"},
}}
PLUGINHOST = PLUGINS
"""

URLS = """
from django.http import HttpResponse
from django.urls import path
from django.template import engines
from pluginhost import host

def home(request):
    host.track(request, "signed_up", {"plan": "pro"})
    return HttpResponse(f"welcome{host.render(request)}")

urlpatterns = [path("", home)]
"""

VISIT = """
import django
django.setup()
from django.test import Client
print(Client().get("/").content.decode())
"""

COUNT = """
import django
django.setup()
from pluginhost_timeseries.models import EventCount
print(EventCount.objects.get())
"""

CHAT = '''
"""Posts sign-ups to a chat room."""

from pathlib import Path

import pluginhost
from pluginhost import hookimpl


class Chat(pluginhost.Plugin):
    class Options(pluginhost.Options):
        FILE: str

    @hookimpl
    def on_event(self, event):
        with Path(self.options.FILE).open("a") as file:
            print(event.name, event.properties["plan"], file=file)


class Broken(pluginhost.Plugin):
    @hookimpl
    def filter_request(self, request, user):
        raise RuntimeError("broken filter")

    @hookimpl
    def on_event(self, event):
        raise RuntimeError("broken delivery")

    @hookimpl
    def render_client(self, request, page):
        raise RuntimeError("broken snippet")


class Misspelt(pluginhost.Plugin):
    @hookimpl
    def on_evnt(self, event): ...
'''

CHAT_PROJECT = """
[build-system]
requires = ["hatchling>=1.25"]
build-backend = "hatchling.build"

[project]
name = "pluginhost-chat"
version = "3.1"
dependencies = ["pluginhost"]

[project.entry-points.pluginhost]
chat = "chat:Chat"
broken = "chat:Broken"
misspelt = "chat:Misspelt"

[tool.hatch.build.targets.wheel]
include = ["chat.py"]
"""


class Site:
    """A site in an environment of its own."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python = python
        self.folder = folder
        (folder / "site_urls.py").write_text(URLS)

    def configure(self, **plugins: dict) -> None:
        (self.folder / "site_settings.py").write_text(SETTINGS.replace("PLUGINS", repr({"PLUGINS": plugins})))

    def run(self, *arguments: str, fails: bool = False) -> str:
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        done = subprocess.run(
            [self.python, *arguments],
            cwd=self.folder,
            env={**environment, "DJANGO_SETTINGS_MODULE": "site_settings", "PYTHONPATH": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout + (done.stderr if fails else "")

    def manage(self, *arguments: str, fails: bool = False) -> str:
        return self.run("-W", "error", "-m", "django", *arguments, fails=fails)

    def lanes(self) -> dict[str, dict[str, int]]:
        return json.loads(self.manage("pluginhost", "--json"))["lanes"]


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """An environment into which the host and one plugin were installed by pip."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip(python, ROOT, ROOT / "plugins" / "timeseries")
    return python


def pip(python: Path, *packages: Path) -> None:
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True, capture_output=True)


@pytest.fixture
def site(python: Path, tmp_path: Path) -> Site:
    return Site(python, tmp_path)


def test_host_and_one_plugin_make_a_site_that_tracks(site):
    site.configure(timeseries={})
    site.manage("check", "--fail-level", "WARNING")
    site.manage("migrate", "--verbosity", "0")

    assert site.run("-c", VISIT) == "welcome\n"
    assert site.lanes()["timeseries"] == {
        "accepted": 1, "delivered": 0, "skipped": 0, "waiting": 1, "dead": 0, "discarded": 0,
    }  # fmt: skip
    assert site.manage("pluginhost", "worker", "--drain") == "nothing is due any more; 1 batch was run\n"
    assert site.lanes()["timeseries"]["delivered"] == 1
    assert "signed_up" in site.run("-c", COUNT)


def test_what_is_not_needed_is_not_installed(site):
    site.configure()

    installed = {line.split("==")[0].lower() for line in site.run("-m", "pip", "freeze").splitlines()}

    assert not installed & {"celery", "pymongo", "requests", "psycopg", "kombu"}
    assert len(installed) < 15, installed


def test_a_stranger_s_package_receives_events_and_a_broken_one_changes_nothing(site, python, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(CHAT_PROJECT)
    (package / "chat.py").write_text(CHAT)
    pip(python, package)
    room = tmp_path / "room.txt"
    site.configure(broken={}, chat={"FILE": str(room)}, timeseries={})
    site.manage("migrate", "--verbosity", "0")

    assert site.run("-c", VISIT) == "welcome\n"
    site.manage("pluginhost", "worker", "--drain")

    assert room.read_text() == "signed_up pro\n"
    lanes = site.lanes()
    assert lanes["chat"]["delivered"] == lanes["timeseries"]["delivered"] == 1
    assert (lanes["broken"]["delivered"], lanes["broken"]["waiting"]) == (0, 1)
    listed = json.loads(site.manage("pluginhost", "--json"))["plugins"]
    assert [(plugin["alias"], plugin["distribution"], plugin["version"]) for plugin in listed[:2]] == [
        ("broken", "pluginhost-chat", "3.1"),
        ("chat", "pluginhost-chat", "3.1"),
    ]

    site.configure(misspelt={})
    assert "(pluginhost-chat): it implements an unknown hook 'on_evnt'. Did you mean 'on_event'?" in site.manage(
        "check", fails=True
    )
    site.configure(chatt={"FILE": "x"})
    assert "no installed package offers a plugin named 'chatt'. Did you mean 'chat'?" in " ".join(
        site.manage("check", fails=True).replace("HINT:", "").split()
    )
    site.configure(chat={"FIEL": "x"})
    refusal = " ".join(site.manage("check", fails=True).split())
    assert "there is no option 'FIEL'. Did you mean 'FILE'?" in refusal
    assert "the option FILE is missing" in refusal
