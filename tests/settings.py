"""The site that the tests run on: SQLite, PostgreSQL and MariaDB side by side, routed by the fixture ``database``."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

from psycopg.conninfo import conninfo_to_dict

from tests.servers import folder, mariadb_uri, postgres_uri

SECRET_KEY = "tests"
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "tests.site.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ALLOWED_HOSTS = ["*"]
STATIC_URL = "/static/"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "pluginhost",
    "pluginhost.builtin.bots",
    "pluginhost.builtin.journal",
    "pluginhost_timeseries",
    "tests.site",
]
MIDDLEWARE = [
    "pluginhost.middleware.TrackerMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        # No test kills the machine, so nothing waits for its disk.
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;",
        },
        # A file: other threads have to see it.
        "TEST": {"NAME": folder() / "test.sqlite3"},
    },
}
DATABASE_ROUTERS = ["tests.routers.Chosen"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

if uri := postgres_uri():
    server = conninfo_to_dict(uri)
    DATABASES["postgres"] = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": server["dbname"],
        "USER": server["user"],
        "PASSWORD": server.get("password", ""),
        "HOST": server.get("host", ""),
        "PORT": server.get("port", ""),
    }

if uri := mariadb_uri():
    parts = urlsplit(uri)
    DATABASES["mariadb"] = {
        "ENGINE": "django.db.backends.mysql",
        "NAME": parts.path.strip("/") or "pluginhost",
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parse_qs(parts.query).get("unix_socket", [parts.hostname or ""])[0],
        "PORT": str(parts.port or ""),
        "OPTIONS": {"charset": "utf8mb4"},
        "TEST": {"CHARSET": "utf8mb4"},
    }

PLUGINHOST: dict[str, object] = {}
