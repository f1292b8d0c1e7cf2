"""Stores the events of pluginhost in MongoDB, each of them once."""

from __future__ import annotations

__version__ = "0.1.0"
