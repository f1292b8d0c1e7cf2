"""Every check of the host is produced once, and a clean site has none."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.core import checks
from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connections
from django.db.migrations.loader import MigrationLoader

import pluginhost
from pluginhost import conf
from pluginhost.checks.site import MIDDLEWARE
from tests.flawed import Leaky
from tests.routers import Chosen

ROOT = Path(pluginhost.__file__).parent.parent


def run(databases=()):
    found = checks.run_checks(tags=["pluginhost", *(["database"] if databases else [])], databases=databases)
    return [message for message in found if message.id.startswith(("pluginhost.", "flawed."))]


def produced(id_, databases=()):
    """The one message of this run, which has a hint."""
    [message] = run(databases)
    assert message.id == f"pluginhost.{id_}"
    assert message.hint
    assert message.level == (checks.ERROR if id_.startswith("E") else checks.WARNING)
    return message


@pytest.mark.django_db(databases="__all__")
def test_a_clean_site_has_no_messages(any_database, configure):
    configure("outbox", recorder={}, folder={}, filter={}, snippet={}, PAGE_VIEWS="server", ANONYMOUS_COOKIE="visitor")
    assert run([any_database]) == []


def test_e001_the_setting(configure):
    configure(STRIKT=True)
    message = produced("E001")
    assert message.msg == "PLUGINHOST: there is no key 'STRIKT'. Did you mean 'STRICT'?"
    assert message.hint.startswith("Its keys are: PLUGINS, ENABLED, ")


@pytest.mark.parametrize(
    ("id_", "plugins", "msg"),
    [
        ("E002", {"recoder": {}}, "no installed package offers a plugin named 'recoder'"),
        ("E002", {"twice": {}}, "several packages offer"),
        ("E003", {"unimportable": {}}, "could not be imported"),
        ("E004", {"notaplugin": {}}, "the entry point names"),
        ("E005", {"configured": {"URL": "x"}}, "the option TOKEN is missing"),
        ("E006", {"misspelt": {}}, "unknown hook 'on_evnt'"),
        ("E007", {"modelled": {}}, "INSTALLED_APPS lacks its app"),
        ("E008", {"future": {}}, "needs pluginhost 99.1 or newer"),
    ],
)
def test_errors_of_loading(configure, id_, plugins, msg):
    configure(**plugins)
    message = produced(id_)
    assert msg in message.msg
    assert f"['{next(iter(plugins))}']" in message.msg


def test_one_run_shows_everything_that_is_wrong(configure):
    configure(recoder={}, recorder={}, misspelt={}, configured={}, checked={})
    assert [message.id for message in run()] == [
        "pluginhost.E002",
        "pluginhost.E005",
        "pluginhost.E006",
        "flawed.W001",
    ]


def test_a_plugins_own_messages_appear_for_each_alias(configure):
    configure(checked={}, second={"PLUGIN": "checked"})
    assert [(message.id, message.msg) for message in run()] == [
        ("flawed.W001", "checked looks odd."),
        ("flawed.W001", "second looks odd."),
    ]


def test_e009_a_check_that_raises(configure, monkeypatch):
    configure(leaky={"TOKEN": "hush", "AT": "check"})
    message = produced("E009")
    assert message.msg == "plugin leaky: check() failed: RuntimeError: check failed with ********."

    monkeypatch.setattr(Leaky, "check", lambda self: None)
    assert "plugin leaky: check() failed: TypeError" in produced("E009").msg


def test_e009_a_check_that_gives_no_messages(configure):
    configure(badlychecked={}, checked={})
    first, second = run()
    assert first.id == "pluginhost.E009"
    assert first.msg == "plugin badlychecked: check() failed: TypeError: a str is no CheckMessage."
    assert second.id == "flawed.W001"


@pytest.mark.parametrize(
    ("key", "value"), [("ANONYMOUS_COOKIE", "visitor"), ("PAGE_VIEWS", "server")], ids=["cookie", "page views"]
)
def test_e010_what_needs_the_middleware(configure, settings, key, value):
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != MIDDLEWARE]
    configure(recorder={}, **{key: value})
    message = produced("E010")
    assert message.msg.startswith(f"PLUGINHOST['{key}'] is set, but MIDDLEWARE lacks")
    assert MIDDLEWARE in message.hint


def test_without_the_middleware_the_rest_works(configure, settings):
    settings.MIDDLEWARE = []
    configure(recorder={})
    assert run() == []


def test_turned_off_nothing_is_checked(configure):
    configure(recoder={}, ENABLED=False)
    assert run() == []


@pytest.mark.django_db
def test_w001_sqlite_without_the_write_lock(configure, monkeypatch):
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", {})
    configure("outbox", recorder={})
    assert "'default' begin without the write lock" in produced("W001").msg

    configure("inline", recorder={})
    assert run() == []


@pytest.mark.parametrize(
    "other", ["django.middleware.cache.UpdateCacheMiddleware", "django.middleware.gzip.GZipMiddleware"]
)
def test_w002_what_must_see_the_finished_response(configure, settings, other):
    configure(recorder={})
    settings.MIDDLEWARE = [other, MIDDLEWARE]
    assert run() == []

    settings.MIDDLEWARE = [MIDDLEWARE, other]
    assert produced("W002").msg == f"{other} comes after {MIDDLEWARE}."


@pytest.mark.django_db
def test_e015_a_database_that_no_worker_could_empty(configure, monkeypatch):
    configure("outbox", recorder={})
    monkeypatch.setattr(connections["default"], "vendor", "oracle")
    monkeypatch.setattr(connections["default"], "display_name", "Oracle")
    assert produced("E015", ["default"]).msg.startswith("The outbox does not work on Oracle")

    monkeypatch.setattr(Chosen, "alias", "default")
    assert run([alias for alias in connections if alias != "default"]) == []
    configure("inline", recorder={})
    assert run(["default"]) == []


@pytest.mark.django_db
def test_w014_sqlite_that_does_not_wait_for_a_worker(configure, monkeypatch):
    configure("outbox", recorder={})
    monkeypatch.setitem(connections["default"].settings_dict["OPTIONS"], "timeout", 0.5)
    assert "waits 0.5 s" in produced("W014").msg

    monkeypatch.setitem(connections["default"].settings_dict["OPTIONS"], "timeout", 20)
    assert run() == []


@pytest.fixture
def mariadb(mariadb, configure):
    """The connection to MariaDB, which the outbox uses."""
    configure("outbox", recorder={})
    return connections[mariadb]


@contextmanager
def answering(connection, **variables):
    """The server has these variables."""

    def wrapper(execute, sql, params, many, context):
        for name, value in variables.items():
            sql = sql.replace(f"@@{name}", f"'{value}'" if isinstance(value, str) else str(value))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        yield


@pytest.mark.django_db(databases="__all__")
@pytest.mark.parametrize("level", ["repeatable read", "serializable", None])
def test_w015_transactions_that_lock_gaps(mariadb, monkeypatch, level):
    monkeypatch.setitem(mariadb.settings_dict["OPTIONS"], "isolation_level", level)
    assert (level or "the server's") in produced("W015").msg

    monkeypatch.setitem(mariadb.settings_dict["OPTIONS"], "isolation_level", "READ COMMITTED")
    assert run(["mariadb"]) == []


@pytest.mark.django_db(databases="__all__")
def test_w016_and_w004_a_server_that_is_too_old(mariadb, monkeypatch):
    monkeypatch.setattr(mariadb, "mysql_version", (10, 5, 8))
    old, slow = run(["mariadb"])
    assert (old.id, slow.id) == ("pluginhost.W004", "pluginhost.W016")
    assert slow.msg == "MariaDB 10.5.8, the database 'mariadb', lacks SKIP LOCKED."


@pytest.mark.django_db(databases="__all__")
def test_w004_mysql(mariadb, monkeypatch):
    monkeypatch.setattr(mariadb, "mysql_is_mariadb", False)
    monkeypatch.setattr(mariadb, "mysql_version", (8, 4, 0))
    assert "not tested on MySQL 8.4.0" in produced("W004", ["mariadb"]).msg


@pytest.mark.django_db(databases="__all__")
@pytest.mark.parametrize(
    ("id_", "variable", "value", "msg"),
    [
        ("W017", "max_allowed_packet", 1024**2, "statements of 1048576 bytes at most"),
        ("W018", "character_set_database", "latin1", "keeps texts as latin1"),
        ("W019", "innodb_rollback_on_timeout", 1, "rolls back whole transactions"),
    ],
)
def test_what_a_server_is_set_to(mariadb, id_, variable, value, msg):
    with answering(mariadb, **{variable: value}):
        assert msg in produced(id_, ["mariadb"]).msg
    assert run(["mariadb"]) == []


@pytest.mark.django_db(databases="__all__")
def test_w021_a_clock_that_django_does_not_know(mariadb, settings):
    with mariadb.cursor() as cursor:
        cursor.execute("SET time_zone = '-05:00'")
    try:
        assert "is -300 minutes from UTC" in produced("W021", ["mariadb"]).msg
        settings.USE_TZ, settings.TIME_ZONE = False, "America/Lima"
        assert run(["mariadb"]) == []
        settings.TIME_ZONE = "Asia/Kolkata"
        assert "Asia/Kolkata" in produced("W021", ["mariadb"]).hint
    finally:
        mariadb.close()


@pytest.mark.django_db(databases="__all__", transaction=True)
@pytest.mark.parametrize(
    ("id_", "change", "back"),
    [
        ("E018", "pluginhost_lane ENGINE=Aria", "pluginhost_lane ENGINE=InnoDB"),
        (
            "E019",
            "pluginhost_envelope MODIFY envelope_id char(32) NOT NULL",
            "pluginhost_envelope MODIFY envelope_id uuid NOT NULL",
        ),
    ],
)
def test_tables_that_are_not_as_they_should_be(mariadb, id_, change, back):
    with mariadb.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {change}")
    try:
        produced(id_, ["mariadb"])
    finally:
        with mariadb.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {back}")
    assert run(["mariadb"]) == []


@pytest.fixture
def manage(tmp_path):
    """``manage.py`` of a small site of its own, outside of any test runner."""

    def manage(setting, *command):
        (tmp_path / "small.py").write_text(
            textwrap.dedent(f"""
            SECRET_KEY = "small"
            INSTALLED_APPS = ["pluginhost"]
            MIDDLEWARE = ["pluginhost.middleware.TrackerMiddleware"]
            ROOT_URLCONF = "small"
            urlpatterns = []
            DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "small.sqlite3"}}}}
            PLUGINHOST = {setting!r}
            """)
        )
        path = os.pathsep.join([str(tmp_path), str(ROOT), str(ROOT / "tests/installed")])
        return subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "small"},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return manage


def test_manage_py_check_fails_on_a_misspelt_alias(manage):
    done = manage({"PLUGINS": {"recoder": {}}}, "-m", "django", "check")
    assert done.returncode == 1
    assert "(pluginhost.E002)" in done.stderr
    assert "Did you mean 'recorder'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_w003_a_journal_that_makes_readers_wait(manage):
    done = manage({"PLUGINS": {"recorder": {}}}, "-m", "django", "check", "--database", "default")
    assert done.returncode == 0
    assert set(re.findall(r"\((pluginhost\.\w+)\)", done.stderr)) == {"pluginhost.W001", "pluginhost.W003"}
    assert "keeps its journal as 'delete'" in done.stderr
    assert "PRAGMA journal_mode=WAL" in done.stderr


def test_a_real_server_refuses_to_start(manage):
    done = manage(
        {"PLUGINS": {"recoder": {}}},
        "-c",
        "from django.core.wsgi import get_wsgi_application; get_wsgi_application()",
    )
    assert done.returncode == 1
    assert "no installed package offers a plugin named 'recoder'. Did you mean 'recorder'?" in done.stderr


@pytest.mark.parametrize("start", [get_wsgi_application, get_asgi_application])
def test_a_site_with_a_wrong_setting_does_not_start(configure, start):
    configure(recoder={})
    with pytest.raises(ImproperlyConfigured, match="Did you mean 'recorder'"):
        start()

    configure(recorder={})
    assert start()


def test_every_id_is_held_by_a_test():
    def ids(pattern, folder, files):
        return {found.upper() for path in folder.rglob(files) for found in re.findall(pattern, path.read_text())}

    assert ids(r"\bpluginhost\.([EW]\d{3})", ROOT / "pluginhost", "*.py") <= ids(
        r"([EWew]\d{3})", ROOT / "tests", "test_*.py"
    )


def test_w006_a_snippet_without_the_middleware(configure, settings):
    settings.MIDDLEWARE = settings.MIDDLEWARE[1:]
    configure(recorder={})
    assert run() == []
    configure(snippet={})
    assert produced("W006").msg.startswith("There is a snippet of snippet, but MIDDLEWARE lacks")


@pytest.mark.parametrize("key", ["MASKED_NAMES", "SECRET_ROUTE_ARGUMENTS"])
def test_w005_a_list_that_replaces_ours(configure, key):
    configure("memory", **{key: ["salary"]})
    message = produced("W005")
    assert message.msg.startswith(f"PLUGINHOST[{key!r}] replaces")
    assert "token" in message.msg
    assert f"[*pluginhost.conf.{key}, ...]" in message.hint

    configure("memory", **{key: [*getattr(conf, key), "salary"]})
    assert run() == []


def test_e011_the_host_itself_is_missing(configure, settings):
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "pluginhost"]
    configure(recorder={})

    with pytest.raises(
        ImproperlyConfigured, match='INSTALLED_APPS lacks the host. Add the line "pluginhost"'
    ) as caught:
        get_wsgi_application()
    assert caught.value.id == "pluginhost.E011"


@pytest.mark.django_db(databases="__all__")
def test_the_migrations_of_the_host_are_complete():
    call_command("makemigrations", "pluginhost", check=True, dry_run=True, stdout=io.StringIO())

    assert MigrationLoader(None).disk_migrations.keys() >= {("pluginhost", "0001_initial")}
