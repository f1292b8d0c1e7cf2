"""What can go wrong with a provider, switched on and off while it runs."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

#: The kinds of faults, and what each does.
FAULTS = {
    "hang": "takes the request, and never answers",
    "500": "answers 500",
    "503": "answers 503",
    "400": "answers 400",
    "429": "answers 429, with Retry-After",
    "garbage": "answers 200, with a page of HTML",
    "reset": "closes the connection without an answer",
    "half": "keeps what it was told, and breaks off in the middle of its answer",
}
#: Seconds that a connection hangs at most.
LONGEST = 300.0


@dataclass
class Fault:
    kind: str
    times: int | None
    """For so many requests; None: until it is mended."""
    retry_after: int | str
    keep: bool
    """Whether the request has its effect nonetheless."""
    scripts: bool
    """Whether scripts fail as well."""
    only: str
    """It meets requests with this text alone."""
    over: threading.Event = field(default_factory=threading.Event)
    """Set when it is mended: what hangs is let go."""


class Faults:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: dict[str, Fault] = {}
        self._spent: list[tuple[str, Fault]] = []

    def set(
        self,
        provider: str,
        kind: str,
        *,
        times: int | None = None,
        retry_after: int | str = 1,
        keep: bool | None = None,
        scripts: bool = False,
        only: str = "",
    ) -> None:
        """Let a provider fail. Raises ``ValueError`` for an unknown kind."""
        if kind not in FAULTS:
            raise ValueError(f"{kind!r} is no fault; there are {', '.join(FAULTS)}")
        self.mend(provider)
        with self._lock:
            fault = Fault(kind, times, retry_after, kind == "half" if keep is None else keep, scripts, only)
            self._faults[provider] = fault

    def mend(self, provider: str | None = None) -> None:
        """End the fault of one provider, or of all."""
        with self._lock:
            for name in list(self._faults):
                if provider in (None, name):
                    self._spent.append((name, self._faults.pop(name)))
            for name, fault in self._spent:
                if provider in (None, name):
                    fault.over.set()
            self._spent = [(name, fault) for name, fault in self._spent if not fault.over.is_set()]

    def strike(self, provider: str, text: str = "", *, script: bool = False) -> Fault | None:
        """The fault that meets this request, in which there is this text."""
        with self._lock:
            fault = self._faults.get(provider)
            if fault is None or (script and not fault.scripts) or fault.only not in text:
                return None
            if fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self._spent.append((provider, self._faults.pop(provider)))
            return fault

    def now(self) -> dict[str, str]:
        """Provider -> the kind of its fault."""
        with self._lock:
            return {provider: fault.kind for provider, fault in self._faults.items()}
