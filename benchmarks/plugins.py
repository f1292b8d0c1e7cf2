"""The measurements' own plugins: a provider that takes events in bulk, and one that does nothing."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import requests

import pluginhost
from pluginhost import hookimpl

if TYPE_CHECKING:
    from pluginhost import Batch

#: Events of one POST: as many as Segment's client sends.
POSTED = 100


class Bulk(pluginhost.Plugin):
    """Posts events as JSON, with the HTTP library that Segment's client uses."""

    class Options(pluginhost.Options):
        URL: str

    options: Options
    dedupes: ClassVar[bool] = True
    _session: requests.Session

    def setup(self) -> None:
        self._session = requests.Session()

    def close(self) -> None:
        self._session.close()

    @hookimpl
    def aggregate(self, batch: Batch) -> None:
        events = iter(batch)
        while some := list(islice(events, POSTED)):
            headers = {"Content-Type": "application/json"}
            answer = self._session.post(
                self.options.URL, data=msgspec.json.encode(some), headers=headers, timeout=self.timeout
            )
            answer.raise_for_status()


class Nothing(pluginhost.Plugin):
    """Takes events, and does nothing with them. Stands in for a plugin that is not installed."""

    event_types: ClassVar[frozenset[Any]] = frozenset({"track", "page", "identify", "alias"})
    dedupes: ClassVar[bool] = True

    @hookimpl
    def aggregate(self, batch: Batch) -> None: ...
