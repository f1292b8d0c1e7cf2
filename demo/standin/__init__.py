"""Stands for KISSmetrics and Matomo, on one port of this machine: in the demo, and in tests.

It answers what the real ones answer, keeps what they would keep, and says why it
does not keep the rest. ``python -m standin --port 8001`` serves until it is ended;
``StandIn`` is the same as an object. It needs nothing but Python.
"""

from __future__ import annotations

from .faults import FAULTS
from .hits import Hit
from .server import StandIn
from .visitors import Visitor

__all__ = ["FAULTS", "Hit", "StandIn", "Visitor"]
