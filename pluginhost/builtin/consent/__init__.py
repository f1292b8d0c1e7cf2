"""Lets through what the visitor has agreed to, and gives a site what its banner needs."""

from __future__ import annotations

from pluginhost.builtin.consent.choice import grant, granted, withdraw
from pluginhost.builtin.consent.plugin import Consent

__all__ = ["Consent", "grant", "granted", "withdraw"]
