"""Starts the site in this process, or says what another process needs to start it."""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
INSTALLED = Path(__file__).parent / "installed"

MIDDLEWARE = ["pluginhost.middleware.TrackerMiddleware"]
FILTERS: dict[str, dict[str, Any]] = {"bots": {}, "consent": {}}


def sqlite(path: Path) -> dict[str, Any]:
    """A file, as the host's checks want it, that does not wait for the disk at each commit."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }


def four(receiver: str = "http://127.0.0.1:9", mongodb: str = "mongodb://127.0.0.1:9/") -> dict[str, dict[str, Any]]:
    """The filters, and four plugins with lanes. One that is not installed is replaced by one that does nothing."""
    wanted: dict[str, dict[str, Any]] = {
        "kissmetrics": {"API_KEY": "0123456789abcdef" * 2 + "01234567", "TRACKING_URL": receiver},
        "piwik": {"URL": receiver, "SITE_ID": 1, "TOKEN_AUTH": "0123456789abcdef" * 2},
        "mongo": {"URI": mongodb, "DATABASE": "benchmarks"},
        "timeseries": {},
    }
    found = {alias: options if is_installed(alias) else {"PLUGIN": "nothing"} for alias, options in wanted.items()}
    return FILTERS | found


def is_installed(name: str) -> bool:
    """Whether the plugin of this name can be imported."""
    for entry_point in entry_points(group="pluginhost", name=name):
        try:
            entry_point.load()
        except Exception as error:
            print(f"the plugin {name} can't be imported: {type(error).__name__}: {error}", file=sys.stderr)
            return False
        return True
    return False


def environment(
    databases: dict[str, Any],
    plugins: dict[str, dict[str, Any]] | None,
    settings: dict[str, Any] | None = None,
    **more: str,
) -> dict[str, str]:
    """What a process needs to run the site. Without plugins the host is not installed.

    ``settings`` are more keys of the host's setting.
    """
    setting = None if plugins is None else {"PLUGINS": plugins, "STRICT": False, **(settings or {})}
    paths = [str(ROOT), str(INSTALLED), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(os.pathsep.join(paths).split(os.pathsep))),
        "DJANGO_SETTINGS_MODULE": "benchmarks.shop.settings",
        "BENCHMARKS_DATABASES": json.dumps(databases),
        "BENCHMARKS_PLUGINHOST": json.dumps(setting),
        "BENCHMARKS_MIDDLEWARE": json.dumps(MIDDLEWARE if plugins else []),
        **more,
    }


def boot(
    databases: dict[str, Any],
    plugins: dict[str, dict[str, Any]] | None = None,
    settings: dict[str, Any] | None = None,
) -> None:
    """Set up Django in this process, and make the tables of each database."""
    os.environ.update(environment(databases, plugins, settings))
    if str(INSTALLED) not in sys.path:
        sys.path.append(str(INSTALLED))
    import django
    from django.core.management import call_command

    django.setup()
    for alias in databases:
        # Those with migrations first: the others' foreign keys lead to them.
        for run_syncdb in (False, True):
            call_command("migrate", database=alias, run_syncdb=run_syncdb, verbosity=0)
    if plugins is not None:
        from pluginhost import host

        host.registry  # noqa: B018 - loads the plugins now
