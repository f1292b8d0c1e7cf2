"""Sends the events of pluginhost to Matomo (Piwik): from the server in bulk, and in the browser."""

from __future__ import annotations

__version__ = "0.1.0"
