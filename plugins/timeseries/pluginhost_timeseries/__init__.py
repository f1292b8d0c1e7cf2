"""Counters per object and day for pluginhost.

The names below are the public ones. They are looked up on first use, because
models cannot be imported before Django has read INSTALLED_APPS.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pluginhost_timeseries.models import EventCount, TrackableData, TrackableTimeSeriesData
    from pluginhost_timeseries.sites import AlreadyRegistered, NotRegistered, TrackableSite, site

__version__ = "0.1.0"

_HOME = {
    "AlreadyRegistered": "sites",
    "EventCount": "models",
    "NotRegistered": "sites",
    "TrackableData": "models",
    "TrackableSite": "sites",
    "TrackableTimeSeriesData": "models",
    "site": "sites",
}

__all__ = [  # noqa: RUF022 - the version stands apart from the names
    "AlreadyRegistered",
    "EventCount",
    "NotRegistered",
    "TrackableData",
    "TrackableSite",
    "TrackableTimeSeriesData",
    "site",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
