"""Bounds a whole HTTP call. The time-outs of requests and urllib3 bound the wait for the next byte."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter

if TYPE_CHECKING:
    from types import TracebackType

_own = threading.local()


class Deadline:
    """Shuts down the connections that this thread uses inside ``with``, when it has taken too long.

    Only those of a session with an ``Adapter``. Whoever reads or writes then finds the
    connection closed, and ``passed`` says why.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.passed = False
        self._lock = threading.Lock()
        self._socket: Any = None
        self._timer = threading.Timer(seconds, self._pass)
        self._timer.daemon = True

    def __enter__(self) -> Deadline:
        _own.deadline = self
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _own.deadline = None
        self._timer.cancel()
        with self._lock:
            self._socket = None

    def watch(self, connected: Any) -> None:
        """Shut this socket down when the time is over; at once if it is over already."""
        with self._lock:
            self._socket = connected
            if self.passed:
                _shut_down(connected)

    def _pass(self) -> None:
        with self._lock:
            self.passed = True
            _shut_down(self._socket)


def _shut_down(connected: Any) -> None:
    """Of TLS too, without taking the connection from whoever reads from it."""
    below = getattr(connected, "socket", connected)  # TLS within TLS, to a proxy
    with suppress(OSError):
        if isinstance(below, socket.socket):
            socket.socket.shutdown(below, socket.SHUT_RDWR)


class _Watched:
    """A connection of urllib3 that shows its socket to the thread's deadline."""

    sock: Any

    def _new_conn(self) -> Any:
        connected = super()._new_conn()  # type: ignore[misc]
        _watch(connected)
        return connected

    def putrequest(self, *args: Any, **keywords: Any) -> Any:
        """The beginning of each request: the socket may be a kept one, or now be one of TLS."""
        _watch(self.sock)
        return super().putrequest(*args, **keywords)  # type: ignore[misc]


def _watch(connected: Any) -> None:
    deadline: Deadline | None = getattr(_own, "deadline", None)
    if deadline is not None and connected is not None:
        deadline.watch(connected)


@cache
def _watching(pool: Any) -> Any:
    """The same kind of pool, of watched connections."""
    connection = type(f"Watched{pool.ConnectionCls.__name__}", (_Watched, pool.ConnectionCls), {})
    return type(f"Watching{pool.__name__}", (pool,), {"ConnectionCls": connection})


class Adapter(HTTPAdapter):
    """Makes connections that a ``Deadline`` can end, to servers and to proxies of any kind."""

    def init_poolmanager(self, *args: Any, **keywords: Any) -> None:
        super().init_poolmanager(*args, **keywords)
        _adapt(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **keywords: Any) -> Any:
        return _adapt(super().proxy_manager_for(*args, **keywords))


def _adapt(manager: Any) -> Any:
    pools = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {
        scheme: pool if issubclass(pool.ConnectionCls, _Watched) else _watching(pool) for scheme, pool in pools.items()
    }
    return manager
