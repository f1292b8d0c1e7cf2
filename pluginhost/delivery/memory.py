"""The transport of tests: events stay in this process and go to no plugin."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar

from pluginhost.delivery.envelopes import VERSION, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pluginhost.delivery.envelopes import Envelope
    from pluginhost.events import Event

#: The newest events. Bounded, so that a long test run does not grow.
events: deque[Event] = deque(maxlen=10_000)


class Memory:
    uses_database: ClassVar[bool] = False

    def put(self, envelopes: Sequence[Envelope], using: str) -> bool:  # noqa: ARG002
        for envelope in envelopes:
            events.extend(stored.event for stored in unpack(VERSION, envelope.payload) if stored.event)
        return True


transport = Memory()
