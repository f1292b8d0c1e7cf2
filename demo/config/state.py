"""Where the demo keeps what it makes: database, MongoDB's data, logs. Knows nothing of Django."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
PLACE = Path(os.environ.get("DEMO_DIR") or ROOT / ".demo").absolute()
"""Perhaps a directory that somebody uses: nothing is made or deleted in it but the next one."""
STATE = PLACE / "pluginhost-demo"
LOCK = STATE / "pluginhost-demo.lock"
"""By which a directory is known to be a demo's."""
DATABASE = STATE / "shop.sqlite3"
LOGS = STATE / "logs"
MONGO_DATA = STATE / "mongo"
MONGO_URI = STATE / "mongo.uri"
"""Written by the runner, which chooses the port, and read by each process of the demo."""

STAND_IN_URL = STATE / "standin.url"
"""The same for the server that stands for KISSmetrics and Matomo."""


def mongo_uri() -> str:
    """The server of this run; MongoDB's usual address before there was one."""
    return MONGO_URI.read_text().strip() if MONGO_URI.exists() else "mongodb://127.0.0.1:27017/"


def stand_in_url() -> str:
    """Of the stand-in of this run, without a slash at its end."""
    return STAND_IN_URL.read_text().strip() if STAND_IN_URL.exists() else "http://127.0.0.1:8001"
