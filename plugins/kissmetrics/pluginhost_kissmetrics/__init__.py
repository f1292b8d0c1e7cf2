"""Sends the events of pluginhost to KISSmetrics, from the server and from the browser."""

from __future__ import annotations

__version__ = "0.1.0"
