"""Bounds a whole call: requests' time-outs bound only each address that is tried, and the gap between two bytes."""

from __future__ import annotations

import io
import math
import threading
from concurrent.futures import Future, InvalidStateError
from http.client import HTTPResponse
from time import monotonic
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError

if TYPE_CHECKING:
    import socket

    import requests


class _Call(threading.local):
    """The call that this thread is in."""

    end = math.inf

    def left(self) -> float:
        """Seconds until its end. Raises ``TimeoutError`` if there are none."""
        left = self.end - monotonic()
        if left <= 0:
            raise TimeoutError("the call took too long")
        return left


_call = _Call()


def at_most(seconds: float) -> None:
    """Let this thread's call end so soon, or as soon as it does anyway."""
    _call.end = min(_call.end, monotonic() + seconds)


class BoundedAdapter(HTTPAdapter):
    """Ends a call after both time-outs together: look-up, connections, TLS, proxy, request and answer."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _bound(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        is_new = proxy not in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if is_new:
            _bound(manager)
        return manager

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> requests.Response:
        """``timeout``: those for connecting and for reading, in seconds; both have to be given."""
        connect, read = timeout
        _call.end = monotonic() + connect + read
        return super().send(request, stream, timeout, *args, **kwargs)


def _bound(manager: Any) -> None:
    """Give a new pool manager, whichever it is, pools of bounded connections."""
    manager.pool_classes_by_scheme = {
        scheme: type(
            pool.__name__,
            (pool,),
            {"ConnectionCls": type(pool.ConnectionCls.__name__, (_Bounded, pool.ConnectionCls), {})},
        )
        for scheme, pool in manager.pool_classes_by_scheme.items()
    }


class _Reader(io.RawIOBase):
    """Reads from a socket, and gives up when the gap is too long or the call is over."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock = sock
        self._raw = raw
        self._gap = sock.gettimeout() or math.inf

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(min(self._gap, _call.left()))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp: Any = io.BufferedReader(_Reader(sock, self.fp.detach()))


class _Bounded:
    """Put before a connection of http.client's kind."""

    response_class = _Response
    sock: Any
    timeout: Any

    def connect(self) -> None:
        """Connect, in a thread of its own, which is left to itself when the time is over.

        Nothing else ends the look-up of a name; and of many addresses each may take
        as long as the time-out for connecting.
        """
        end, connect, outcome = _call.end, super().connect, Future[None]()  # type: ignore[misc]

        def run() -> None:
            _call.end = end
            try:
                connect()
            except BaseException as error:
                failure: BaseException | None = error
            else:
                failure = None
            try:
                outcome.set_exception(failure) if failure else outcome.set_result(None)
            except InvalidStateError:  # nobody waits any more
                self.close()  # type: ignore[attr-defined]

        threading.Thread(target=run, name="kissmetrics-connect", daemon=True).start()
        try:
            outcome.result(_call.left())
        except TimeoutError as error:
            if outcome.cancel():
                raise ConnectTimeoutError(self, "the call took too long") from error
            raise

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        # A connection that was kept still has what was left of the call before.
        self.sock.settimeout(_call.left())
        super().send(data)  # type: ignore[misc]
