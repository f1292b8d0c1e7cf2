"""Fixtures that the tests of the host and of the plugins share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings as django_settings

from tests.routers import Chosen
from tests.samples import Filter, Folder, Properties, Recorder
from tests.servers import mongodb_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _pytest.mark.structures import ParameterSet
    from pytest_django.fixtures import SettingsWrapper


def _served(alias: str, name: str) -> ParameterSet:
    """A database whose server may be missing: its tests are marked with its alias, and skipped without it."""
    missing = pytest.mark.skipif(alias not in django_settings.DATABASES, reason=f"no {name} server")
    return pytest.param(alias, id=alias, marks=[getattr(pytest.mark, alias), missing])


#: The databases that every change is tried on. MariaDB costs time: it joins them where CI asks for it.
DATABASES = [pytest.param("default", id="sqlite"), _served("postgres", "PostgreSQL")]
ALL_DATABASES = [*DATABASES, _served("mariadb", "MariaDB")]
if os.environ.get("PLUGINHOST_TEST_MARIADB") == "everything":
    DATABASES = ALL_DATABASES

#: For tests that start many processes, about what no database could spoil.
on_sqlite, on_postgres = (pytest.mark.parametrize("database", [one], indirect=True) for one in DATABASES[:2])


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test on each database; every model is routed to it."""
    monkeypatch.setattr(Chosen, "alias", request.param)
    return str(request.param)


@pytest.fixture(params=ALL_DATABASES)
def any_database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, always with MariaDB: for what a database could spoil."""
    monkeypatch.setattr(Chosen, "alias", request.param)
    return str(request.param)


@pytest.fixture(params=ALL_DATABASES[1:])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, on those that are servers, with many writers at a time."""
    monkeypatch.setattr(Chosen, "alias", request.param)
    return str(request.param)


@pytest.fixture(params=ALL_DATABASES[2:])
def mariadb(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, on MariaDB alone."""
    monkeypatch.setattr(Chosen, "alias", request.param)
    return str(request.param)


@pytest.fixture(scope="session")
def mongodb() -> str:
    uri = mongodb_uri()
    if uri is None:
        pytest.skip("no MongoDB server")
    return uri


@pytest.fixture
def configure(settings: SettingsWrapper) -> Callable[..., None]:
    """Set ``PLUGINHOST``: plugins by keyword, other keys of the setting in capitals."""

    def configure(transport: str = "memory", /, **keys: Any) -> None:
        upper = {key: value for key, value in keys.items() if key.isupper()}
        plugins = {key: value for key, value in keys.items() if not key.isupper()}
        settings.PLUGINHOST = {
            "PLUGINS": plugins,
            "STRICT": True,
            **upper,
            "TEST": {"TRANSPORT": transport},
        }

    return configure


@pytest.fixture(params=["db", "signed_cookies"])
def sessions(request: pytest.FixtureRequest, settings: SettingsWrapper) -> str:
    """Run the test with sessions in the database, and with those that are all in their cookie."""
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"
    return str(request.param)


@pytest.fixture(autouse=True)
def samples() -> Iterator[None]:
    """Forget what the sample plugins saw and were told, and what is said once a process."""
    from pluginhost import identity
    from pluginhost.delivery import memory

    identity._warn_of_event_loop.cache_clear()
    yield
    memory.events.clear()
    Recorder.reset()
    Folder.batches.clear()
    Properties.touched.clear()
    Filter.answer = None
    Filter.asked.clear()
