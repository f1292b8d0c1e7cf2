"""The site of the tests in a process of its own: databases and plugins come from the environment, as JSON."""

from __future__ import annotations

import json
import os

from tests.settings import *  # noqa: F403

DATABASES = {"default": json.loads(os.environ["PLUGINHOST_TEST_DATABASE"])}
DATABASE_ROUTERS: list[str] = []
PLUGINHOST = json.loads(os.environ["PLUGINHOST_TEST_SETTING"])
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"pluginhost": {"handlers": ["console"], "level": "INFO"}},
}
