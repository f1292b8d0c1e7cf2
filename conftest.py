"""One set of fixtures for the tests of the host and of the plugins."""

from __future__ import annotations

pytest_plugins = ["tests.fixtures"]
