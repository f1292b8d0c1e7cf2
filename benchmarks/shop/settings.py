"""Databases, plugins and middleware come from the environment, as JSON: see ``benchmarks.boot``."""

from __future__ import annotations

import json
import os

SECRET_KEY = "benchmarks"
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "benchmarks.shop.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ALLOWED_HOSTS = ["*"]
STATIC_URL = "/static/"

DATABASES = json.loads(os.environ["BENCHMARKS_DATABASES"])
PLUGINHOST = json.loads(os.environ["BENCHMARKS_PLUGINHOST"])
MIDDLEWARE = json.loads(os.environ.get("BENCHMARKS_MIDDLEWARE", "[]"))

_OF_THE_HOST = ["pluginhost", "pluginhost.builtin.bots", "pluginhost_timeseries", "benchmarks.shop"]
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
if PLUGINHOST is not None:
    INSTALLED_APPS += _OF_THE_HOST

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"pluginhost": {"handlers": ["console"], "level": "WARNING"}},
}
