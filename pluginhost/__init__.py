"""Event tracking for Django in which every provider and every storage is a plugin.

The names below are the public ones. They are looked up on first use, so that
``import pluginhost`` in a settings module neither needs Django's apps nor
costs anything.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pluginhost.api import Host, host
    from pluginhost.decorators import track_event
    from pluginhost.events import Batch, Context, Event, Subject
    from pluginhost.exceptions import (
        AsyncContextError,
        ConfigurationError,
        DeliveryError,
        InvalidEvent,
        PartialFailure,
        PermanentError,
        RetryableError,
        SkipEvent,
        UncertainError,
    )
    from pluginhost.hookspecs import hookimpl
    from pluginhost.html import Page, to_js
    from pluginhost.plugin import Options, Person, Plugin, Secret

__version__ = "0.1.0"

_HOME = {
    "AsyncContextError": "exceptions",
    "Batch": "events",
    "ConfigurationError": "exceptions",
    "Context": "events",
    "CookieIds": "plugin",
    "DeliveryError": "exceptions",
    "Event": "events",
    "Host": "api",
    "InvalidEvent": "exceptions",
    "Options": "plugin",
    "Page": "html",
    "PartialFailure": "exceptions",
    "PermanentError": "exceptions",
    "Person": "plugin",
    "Plugin": "plugin",
    "RetryableError": "exceptions",
    "Secret": "plugin",
    "SkipEvent": "exceptions",
    "Subject": "events",
    "UncertainError": "exceptions",
    "hookimpl": "hookspecs",
    "host": "api",
    "to_js": "html",
    "track_event": "decorators",
}

__all__ = [  # noqa: RUF022 - the version stands apart from the names
    "AsyncContextError",
    "Batch",
    "ConfigurationError",
    "Context",
    "CookieIds",
    "DeliveryError",
    "Event",
    "Host",
    "InvalidEvent",
    "Options",
    "Page",
    "PartialFailure",
    "PermanentError",
    "Person",
    "Plugin",
    "RetryableError",
    "Secret",
    "SkipEvent",
    "Subject",
    "UncertainError",
    "hookimpl",
    "host",
    "to_js",
    "track_event",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pluginhost' has no attribute {name!r}")
    value = getattr(import_module(f"pluginhost.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
