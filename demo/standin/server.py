"""``StandIn``: both providers on one port, and what they have received."""

from __future__ import annotations

import threading
from collections import Counter, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .faults import Faults
from .kissmetrics import Kissmetrics
from .matomo import Matomo
from .web import Server

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from .hits import Answer, Hit, Request
    from .visitors import Visitor

#: Hits that are remembered of each provider.
MOST = 50_000


class StandIn:
    """KISSmetrics at ``kissmetrics_url`` and Matomo at ``matomo_url``, from ``start`` to ``close``.

    ::

        with StandIn() as stand_in:
            ...  # PLUGINHOST: "API_KEY": stand_in.KEY, "URL": stand_in.matomo_url, "SITE_ID": 1
            [hit] = stand_in.wait_for("matomo", kind="goal")
            assert stand_in.person("7") == {"7", "anonymous"}
            with stand_in.failing("matomo", "503"):
                ...

    ``KEY`` is the product's key, ``TOKEN`` may write to each site, ``SUPER_TOKEN`` is the
    super-user's. There are the sites 1 and 2, each with the goals 1 and 2. The server listens on
    127.0.0.1 alone. All methods may be called from any thread.
    """

    KEY = "0123456789abcdef0123456789abcdef01234567"
    TOKEN = "0123456789abcdef0123456789abcdef"
    SUPER_TOKEN = "fedcba9876543210fedcba9876543210"
    PROVIDERS = ("kissmetrics", "matomo")

    def __init__(
        self,
        port: int = 0,
        *,
        keys: Collection[str] = (KEY,),
        sites: Collection[int] = (1, 2),
        goals: Collection[int] = (1, 2),
    ) -> None:
        """Listen on ``port``; 0 is any that is free. Raises ``OSError`` if it is busy."""
        self._hits: dict[str, deque[Hit]] = {name: deque(maxlen=MOST) for name in self.PROVIDERS}
        self._changed = threading.Condition(threading.RLock())
        self.version = 0
        """Grows with each hit, each fault and at ``clear``."""
        self.scripts: Counter[str] = Counter()
        """Path -> how often this script was fetched."""
        self.faults = Faults()
        self.kissmetrics = Kissmetrics(keys, self._keep)
        self.matomo = Matomo(sites, goals, self.TOKEN, self.SUPER_TOKEN, self._keep)
        self._server = Server(port, self)
        self.port: int = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        """Of the page that shows everything; without a slash at its end, as are the others."""
        self.kissmetrics_url = f"{self.url}/kissmetrics"
        self.matomo_url = f"{self.url}/matomo"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="stand-in")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop, let go of what hangs, and close every connection."""
        self.mend()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> StandIn:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What was received.

    def received(self, provider: str | None = None, *, kept: bool | None = True, **fields: Any) -> list[Hit]:
        """The hits of one provider, or of both, in the order in which they came.

        ``kept``: only those that were kept (True), were not (False), or both (None).
        ``fields`` are those of ``Hit``: ``received("matomo", kind="goal", origin="browser")``.
        """
        with self._changed:
            hits = [hit for name, hits in self._hits.items() if provider in (None, name) for hit in hits]
        return [
            hit
            for hit in sorted(hits, key=lambda hit: hit.received)
            if kept in (None, hit.kept) and all(getattr(hit, name) == value for name, value in fields.items())
        ]

    def wait_for(
        self, provider: str | None = None, n: int = 1, *, seconds: float = 10, kept: bool | None = True, **fields: Any
    ) -> list[Hit]:
        """The same, as soon as there are ``n``. Raises ``TimeoutError`` if there are fewer after so many seconds."""
        found: list[Hit] = []

        def enough() -> bool:
            found[:] = self.received(provider, kept=kept, **fields)
            return len(found) >= n

        with self._changed:
            if not self._changed.wait_for(enough, seconds):
                raise TimeoutError(f"{len(found)} of {n} hits after {seconds} s")
        return found

    def person(self, identity: str) -> frozenset[str]:
        """KISSmetrics: all ids of the person that this one is of."""
        with self._changed:
            return self.kissmetrics.people.person(identity)

    def people(self) -> list[frozenset[str]]:
        """KISSmetrics: each person, as a set of ids."""
        with self._changed:
            return self.kissmetrics.people.all()

    def visitors(self) -> list[Visitor]:
        """Matomo: each visitor."""
        with self._changed:
            return self.matomo.visitors.all()

    def clear(self) -> None:
        """Forget everything that was received. Faults stay."""
        with self._changed:
            self.kissmetrics.clear()
            self.matomo.clear()
            self.scripts.clear()
            for hits in self._hits.values():
                hits.clear()
            self._note()

    # What goes wrong.

    def fail(self, provider: str, fault: str, **how: Any) -> None:
        """Let a provider fail, until ``mend``: ``fault`` is one of ``FAULTS``.

        ``how``: ``times`` (for so many requests), ``retry_after`` (seconds, or a date as HTTP has it),
        ``keep`` (whether the hits count nonetheless; by default only those whose answer is broken off,
        ``half``), ``scripts`` (whether the scripts fail too; by default only hits do), ``only`` (requests
        with this text in their query or body).
        """
        if provider not in self.PROVIDERS:
            raise ValueError(f"{provider!r} is no provider; there are {', '.join(self.PROVIDERS)}")
        self.faults.set(provider, fault, **how)
        self._note()

    def mend(self, provider: str | None = None) -> None:
        """End the fault of one provider, or of all."""
        self.faults.mend(provider)
        self._note()

    @contextmanager
    def failing(self, provider: str, fault: str, **how: Any) -> Iterator[None]:
        self.fail(provider, fault, **how)
        try:
            yield
        finally:
            self.mend(provider)

    # For the server.

    def decide(self, provider: str, request: Request, refusal: str = "") -> Answer:
        """Let a provider decide, one request after the other."""
        with self._changed:
            return (self.matomo if provider == "matomo" else self.kissmetrics).answer(request, refusal)

    def snapshot(self) -> dict[str, Any]:
        """Everything as data, as ``received.json`` shows it."""
        with self._changed:
            return {
                "version": self.version,
                "faults": self.faults.now(),
                "kissmetrics": {
                    "hits": [hit.as_json() for hit in self._hits["kissmetrics"]],
                    "people": [sorted(person) for person in self.people()],
                },
                "matomo": {
                    "hits": [hit.as_json() for hit in self._hits["matomo"]],
                    "visitors": [visitor.as_json() for visitor in self.visitors()],
                },
            }

    def _keep(self, hit: Hit) -> None:
        self._hits[hit.provider].append(hit)
        self._note()

    def _note(self) -> None:
        with self._changed:
            self.version += 1
            self._changed.notify_all()
