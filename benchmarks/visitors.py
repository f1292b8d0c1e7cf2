"""Visitors of a site: connections that are kept, each asking for the next page as soon as it has one."""

from __future__ import annotations

import selectors
import socket
from collections import Counter
from time import perf_counter
from typing import NamedTuple

#: Attempts to get as many connections to each process as it is to have.
TRIES = 50

_REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: {agent}\r\nAccept-Language: de\r\n"
    "Cookie: pluginhost_consent=1:analytics.marketing\r\n\r\n"
)


class Visit(NamedTuple):
    """What the visitors saw."""

    pages: int
    rate: float
    """Pages a second."""
    median: float
    """Milliseconds that one of two pages took at most."""
    slowest: float
    """Milliseconds that 99 of 100 pages took at most."""


class Visitors:
    """``connections`` kept connections, as many to each of ``processes`` processes."""

    def __init__(self, port: int, path: str, agent: str, *, connections: int, processes: int) -> None:
        self._request = _REQUEST.format(path=path, agent=agent).encode()
        self._sockets: list[socket.socket] = []
        each = connections // processes
        led: Counter[bytes] = Counter()
        for _ in range(TRIES):
            # Many at a time: while one process answers, the other one takes the next connection.
            for made in self._connected(port, 4 * connections):
                process = _header(_answer(made), b"x-process")
                if len(self._sockets) < connections and led[process] < each:
                    led[process] += 1
                    self._sockets.append(made)
                else:
                    made.close()
            if len(self._sockets) == connections:
                return
        raise RuntimeError(f"the {processes} processes do not share the connections: {dict(led)}")

    def _connected(self, port: int, count: int) -> list[socket.socket]:
        """New connections, each with its first request on the way."""
        made = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
        for connection in made:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(self._request)
        return made

    def visit(self, seconds: float) -> Visit:
        """Look at pages for so long."""
        times: list[float] = []
        sent: dict[socket.socket, float] = {}
        with selectors.DefaultSelector() as selector:
            begun = now = perf_counter()
            for each in self._sockets:
                selector.register(each, selectors.EVENT_READ)
                each.sendall(self._request)
                sent[each] = now
            while sent:
                for key, _ in selector.select(10):
                    each = key.fileobj  # type: ignore[assignment]
                    _answer(each)
                    now = perf_counter()
                    times.append(now - sent.pop(each))
                    if now - begun < seconds:
                        each.sendall(self._request)
                        sent[each] = now
        times.sort()
        slowest = times[int(len(times) * 0.99)]
        return Visit(len(times), len(times) / (now - begun), times[len(times) // 2] * 1e3, slowest * 1e3)

    def close(self) -> None:
        for each in self._sockets:
            each.close()


def _answer(connection: socket.socket) -> bytes:
    """One whole answer. Raises ``RuntimeError`` if it is no page."""
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0 or len(received) < end + 4 + int(
        _header(received, b"content-length")
    ):
        more = connection.recv(65536)
        if not more:
            raise RuntimeError("the server has closed the connection")
        received += more
    if not received.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"no page: {received[:200]!r}")
    return received


def _header(answer: bytes, name: bytes) -> bytes:
    for line in answer.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        found, _, value = line.partition(b":")
        if found.lower() == name:
            return value.strip()
    raise RuntimeError(f"no header {name!r} in {answer[:200]!r}")
