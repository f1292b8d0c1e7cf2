"""A provider: accepts what is sent to it over HTTP, and counts.

``python -m benchmarks.receiver PORT DELAY MARKER``. Every request is answered with
200 after DELAY seconds. ``GET /count`` says how often MARKER was in the bodies so far,
or, without a marker, how many requests came. Lean, so that it is never what limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from urllib.request import urlopen

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

#: What stands for an event in the bodies of each contestant.
SEGMENT = '"messageId"'
BULK = '"message_id"'
MATOMO = '"?idsite='


class Connection(asyncio.Protocol):
    count = 0
    marker = b""
    delay = 0.0

    def __init__(self) -> None:
        self.received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self.received, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.received) < whole:
                return
            request = bytes(self.received[:whole])
            del self.received[:whole]
            self._take(request)

    def _take(self, request: bytes) -> None:
        if request.startswith(b"GET /count "):
            self._answer(b"%d" % Connection.count)
            return
        events = request.count(self.marker) if self.marker else 1
        Connection.count += events
        body = b'{"status":"success","tracked":%d,"invalid":0}' % events
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, self._answer, body)
        else:
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.transport.write(head % len(body) + body)


def count(url: str) -> int:
    """How many events this receiver has got."""
    with urlopen(f"{url}/count") as answer:
        return int(answer.read())


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    Connection.delay, Connection.marker = float(sys.argv[2]), sys.argv[3].encode()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1])))
