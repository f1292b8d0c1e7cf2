"""What is measured: a module for each group of rows."""

from __future__ import annotations

from importlib import import_module

from benchmarks.measuring import MEASUREMENTS, Measurement

#: In the order of the table.
MODULES = (
    "caller",
    "postgres",
    "connections",
    "pages",
    "flow",
    "storages",
    "backlog",
    "providers",
    "celery",
    "losses",
    "small",
)


def load() -> list[Measurement]:
    """Every measurement, in order, whichever module was imported first."""
    names = [import_module(f"{__name__}.{module}").__name__ for module in MODULES]
    return sorted(MEASUREMENTS, key=lambda measurement: names.index(measurement.measure.__module__))
