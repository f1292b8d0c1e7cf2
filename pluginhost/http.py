"""HTTP for plugins that deliver: calls that end in time, over connections that are kept.

The time-outs of requests and urllib3 bound each address that is tried, and the gap
between two bytes. Here they bound the whole call: look-up, connections, TLS, proxy,
request and answer.

This module needs requests, and the host does not: a plugin that uses it names requests
in its own dependencies, and imports this module in ``setup``, as that takes long.
"""

from __future__ import annotations

import io
import math
import os
import threading
from concurrent.futures import Future, InvalidStateError
from http.client import HTTPResponse
from time import monotonic
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import ConnectTimeoutError

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping


class Client:
    """Makes calls, and does with each what it says and no more. Threads may share it, and a child of a fork may use it.

    No redirect is followed, no cookie is kept, and no password is taken out of
    ``~/.netrc``. Proxies and certificates of the environment (``HTTPS_PROXY``,
    ``NO_PROXY``, ``REQUESTS_CA_BUNDLE``) are used as they are at a server's first call.
    """

    def __init__(self, user_agent: str, *, connections: int = 1) -> None:
        """``connections`` are kept open to each server, at most. None is opened yet."""
        self._headers = {**requests.utils.default_headers(), "User-Agent": user_agent}
        self._connections = connections
        self._begin()
        self._settings: dict[tuple[str, str], Any] = {}

    def _begin(self) -> None:
        self._adapter = _Adapter(pool_maxsize=self._connections)
        self._process = os.getpid()

    def call(
        self,
        method: str,
        url: str,
        *,
        timeouts: tuple[float, float],
        body: bytes | IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """The beginning of the answer; its body is to be read from ``raw`` by the same thread, or closed.

        ``url`` is whole and percent-encoded. ``timeouts`` are those for connecting and
        for reading, in seconds; together they bound the call. Raises
        ``requests.RequestException``, ``OSError`` or ``ValueError``, whose texts may
        hold the URL.
        """
        # Made by hand: a session takes each URL apart, merges options, looks for cookies, reads the environment; that
        # takes as long as the call itself.
        request = requests.PreparedRequest()
        request.method, request.url, request.body = method, url, body or None  # type: ignore[assignment]
        request.headers = CaseInsensitiveDict({**self._headers, **(headers or {})})
        request.prepare_content_length(request.body)
        if self._process != os.getpid():
            self._begin()  # the connections from before a fork are the parent's
        _call.end = monotonic() + sum(timeouts)
        return self._adapter.send(request, timeout=timeouts, **self._settings_of(url))

    def _settings_of(self, url: str) -> Any:
        """What the environment says of this server."""
        server = urlsplit(url)[:2]
        if server not in self._settings:
            with requests.Session() as session:
                self._settings[server] = session.merge_environment_settings(url, {}, True, None, None)
        return self._settings[server]

    def close(self) -> None:
        """Close the connections. A later call opens new ones."""
        self._adapter.close()


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


def is_over() -> bool:
    """Whether the time of this thread's last call is over."""
    return monotonic() >= _call.end


class _Adapter(HTTPAdapter):
    """Makes connections that know of the call's end, to servers and to proxies of any kind."""

    def __init__(self, *, pool_maxsize: int) -> None:
        self._lock = threading.Lock()
        super().__init__(pool_maxsize=pool_maxsize)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _bound(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        with self._lock:  # or another thread would get it before it is bounded
            is_new = proxy not in self.proxy_manager
            manager = super().proxy_manager_for(proxy, **kwargs)
            if is_new:
                _bound(manager)
            return manager


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

        threading.Thread(target=run, name="pluginhost-connect", daemon=True).start()
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
