"""The start of a site: what it leaves to those who need it, and what it says all the same of what is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pluginhost import host
from pluginhost.exceptions import ConfigurationError
from tests.processes import ROOT

ENABLED = {
    "bots": {},
    "kissmetrics": {"API_KEY": "0" * 40},
    "piwik": {"URL": "https://stats.example.com/", "SITE_ID": 1, "TOKEN_AUTH": "0" * 32},
    "mongo": {"URI": "mongodb://ann:pass%40word@db1,db2:27017/?replicaSet=rs0&tls=true", "DATABASE": "tracking"},
    "timeseries": {},
}

CHECK = f"""
import sys
import django
from django.conf import settings
from django.core.management import call_command

settings.configure(
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "pluginhost", "pluginhost_timeseries"],
    DATABASES={{"default": {{
        "ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "OPTIONS": {{"transaction_mode": "IMMEDIATE"}}
    }}}},
    MIDDLEWARE=["pluginhost.middleware.TrackerMiddleware"],
    PLUGINHOST={{"PLUGINS": {ENABLED!r}, "TRANSPORT": "outbox"}},
)
django.setup()
call_command("check", verbosity=0)
from pluginhost import host
assert list(host.registry.plugins) == {list(ENABLED)!r}
print(*{{name.partition(".")[0] for name in sys.modules}})
"""


def test_a_start_imports_no_client_of_a_provider():
    ran = subprocess.run([sys.executable, "-c", CHECK], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert ran.returncode == 0, ran.stderr
    imported = set(ran.stdout.split())
    assert "pluginhost_kissmetrics" in imported
    assert imported.isdisjoint({"requests", "urllib3", "pymongo", "bson", "crawleruseragents", "celery", "kombu"})


@pytest.mark.parametrize(
    ("alias", "missing"),
    [("bots", "crawleruseragents"), ("kissmetrics", "requests"), ("piwik", "requests"), ("mongo", "pymongo")],
)
def test_a_client_that_is_missing_is_said_at_the_start(configure, monkeypatch, alias, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    home = "pluginhost.builtin.bots" if alias == "bots" else f"pluginhost_{alias}"
    monkeypatch.delitem(sys.modules, f"{home}.plugin", raising=False)
    configure("memory", **{alias: ENABLED[alias]})

    with pytest.raises(ConfigurationError, match=f"'{alias}'.*could not be imported") as caught:
        host.registry  # noqa: B018

    assert caught.value.id == "pluginhost.E003"
    assert ("pip install" if alias == "bots" else f"'{missing}'") in str(caught.value)
