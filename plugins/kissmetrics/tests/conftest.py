"""A key, and a stand-in for KISSmetrics at the network's edge: a real HTTP server, in a thread."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GIF = b"GIF89a" + bytes(37)


@dataclass
class Hit:
    method: str
    path: str
    parameters: list[tuple[str, str]]
    headers: dict[str, str]


@dataclass
class Receiver:
    """What came in, and what is answered: 200 and a tiny image, as long as a test says nothing else."""

    url: str = ""
    hits: list[Hit] = field(default_factory=list)
    connections: int = 0
    answer: Callable[[BaseHTTPRequestHandler], None] | None = None
    leave: threading.Event = field(default_factory=threading.Event)
    """Set when the test is over, for answers that wait."""

    @property
    def last(self) -> dict[str, str]:
        return dict(self.hits[-1].parameters)

    def status(self, status: int, **headers: str) -> None:
        """From now on answer this."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()

        self.answer = answer

    def raw(self, data: bytes) -> None:
        """From now on answer these bytes, and hang up."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.wfile.write(data)
            handler.close_connection = True

        self.answer = answer

    def drip(self, data: bytes, at_once: bytes = b"") -> None:
        """From now on answer ten bytes a second, after those that come at once."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.wfile.write(at_once)
            for byte in data:
                if self.leave.wait(0.1):
                    break
                handler.wfile.write(bytes([byte]))
            handler.close_connection = True

        self.answer = answer


@pytest.fixture
def api_key() -> str:
    return "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            state.connections += 1

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            parameters = parse_qsl(body or parts.query, keep_blank_values=True, strict_parsing=True)
            state.hits.append(Hit(self.command, parts.path, parameters, dict(self.headers)))
            if state.answer is not None:
                state.answer(self)
                return
            self.send_response(200)
            self.send_header("Content-Type", "image/gif")
            self.send_header("Content-Length", str(len(GIF)))
            self.send_header("Set-Cookie", "km_ai=of-the-server; Path=/")
            self.end_headers()
            self.wfile.write(GIF)

        do_POST = do_GET  # noqa: N815 - the server's own names

        def do_CONNECT(self) -> None:
            state.hits.append(Hit(self.command, self.path, [], dict(self.headers)))
            assert state.answer is not None
            state.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        block_on_close = False

        def handle_error(self, *args: object) -> None:
            pass  # a client that hung up

    server = Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state
    state.leave.set()
    server.shutdown()
    thread.join()
    server.server_close()
