"""HTTP/1.1 for the stand-in: routes, faults, headers, connections."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from . import page
from .faults import LONGEST, Fault
from .hits import Answer, Request, form

if TYPE_CHECKING:
    from .server import StandIn

ASSETS = Path(__file__).with_name("assets")
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
#: Bytes of a request's body.
MAX_BODY = 16 * 1024 * 1024
GARBAGE = b"<!doctype html><title>Welcome</title><p>It works! Come back when somebody has installed something here."
#: Matomo's program goes by two names, as does its script.
MATOMO_SCRIPTS = ("matomo.js", "piwik.js")
MATOMO_PROGRAMS = ("matomo.php", "piwik.php")


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close() waits for them
    request_queue_size = 128

    def __init__(self, port: int, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the other side was faster
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that has gone away is no error
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "standin"
    sys_version = ""
    #: Seconds that a connection may be silent.
    timeout = 75
    #: Headers and body leave in one packet, so that no acknowledgement is waited for.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._route()

    do_HEAD = do_POST = do_OPTIONS = do_GET  # noqa: N815 - the names are of the standard library

    def log_message(self, *_: object) -> None:
        """The page shows what was received; a log would be in the way."""

    def _route(self) -> None:
        target = urlsplit(self.path)
        body = self._body()
        if body is None:
            return
        provider, _, rest = target.path.lstrip("/").partition("/")
        request = Request(
            self.command, rest, target.query, body, dict(self.headers.items()), self.client_address[0], time.time()
        )
        if provider in self.server.stand_in.PROVIDERS:
            self._provider(provider, request)
        else:
            self._own(target.path, request)

    def _body(self) -> bytes | None:
        given = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not given.isdigit() or int(given) > MAX_BODY:
            self.close_connection = True
            self._send(Answer(413, b"too much, or of unknown length"))
            return None
        return self.rfile.read(int(given))

    # The providers.

    def _provider(self, provider: str, request: Request) -> None:
        script = self._script(provider, request)
        programs = MATOMO_PROGRAMS if provider == "matomo" else ("e", "s", "a")
        if script is None and request.path not in programs:
            self._send(Answer(404, b"there is nothing here"))
            return
        stand_in = self.server.stand_in
        text = request.query + request.body.decode("utf-8", "replace")
        fault = stand_in.faults.strike(provider, text, script=script is not None)
        if script is not None:
            stand_in.scripts[f"{provider}/{request.path}"] += 1
            answer = script
        else:
            refusal = f"the provider was failing: {fault.kind}" if fault and not fault.keep else ""
            answer = stand_in.decide(provider, request, refusal)
        if fault:
            self._fail(fault, answer)
        else:
            self._send(answer, **{"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"})

    def _script(self, provider: str, request: Request) -> Answer | None:
        """The answer for a script; None if the request is for no script."""
        if provider == "matomo":
            return _asset("matomo.js") if request.path in MATOMO_SCRIPTS else None
        if request.path == "i.js":
            return _asset("i.js")
        if not request.path.endswith(".2.js"):
            return None
        known = self.server.stand_in.kissmetrics.knows(request.path.removesuffix(".2.js"))
        return _asset("kissmetrics.js") if known else Answer(403, b"no script was published for this key")

    def _fail(self, fault: Fault, answer: Answer) -> None:
        if fault.kind in ("400", "500", "503"):
            self._send(Answer(int(fault.kind), b"<h1>Sorry</h1>"))
        elif fault.kind == "429":
            self._send(Answer(429, b"slower, please"), **{"Retry-After": str(fault.retry_after)})
        elif fault.kind == "garbage":
            self._send(Answer(200, GARBAGE))
        else:
            self.close_connection = True
            if fault.kind == "hang":
                fault.over.wait(LONGEST)
            elif fault.kind == "half":
                self.wfile.write(
                    f"HTTP/1.1 {answer.status} OK\r\nContent-Type: {answer.content_type}\r\n"
                    f"Content-Length: {len(answer.body) + 100}\r\n\r\n".encode()
                    + answer.body[: len(answer.body) // 2]
                )

    # The stand-in's own page.

    def _own(self, path: str, request: Request) -> None:
        stand_in = self.server.stand_in
        if request.method == "POST":
            self._command(path, form(request.body.decode("utf-8", "replace")))
        elif path == "/":
            self._send(Answer(200, page.render(stand_in.snapshot()).encode()))
        elif path == "/received.json":
            self._send(Answer(200, json.dumps(stand_in.snapshot()).encode(), "application/json"))
        elif path in ("/page.css", "/page.js", "/icon.svg"):
            self._send(_asset(path[1:]))
        else:
            self._send(Answer(404, b"there is nothing here"))

    def _command(self, path: str, given: dict[str, str]) -> None:
        """``/faults`` (``provider``, ``fault`` or nothing to end it, ``times``, ``retry_after``) and ``/clear``."""
        stand_in = self.server.stand_in
        if self.headers.get("Origin", stand_in.url) not in (stand_in.url, f"http://localhost:{stand_in.port}"):
            self._send(Answer(403, b"only its own page may ask for that"))
            return
        try:
            if path == "/clear":
                stand_in.clear()
            elif path != "/faults":
                self._send(Answer(404, b"there is nothing here"))
                return
            elif given.get("fault"):
                how: dict[str, Any] = {name: int(given[name]) for name in ("times", "retry_after") if given.get(name)}
                how |= {name: given[name] == "1" for name in ("keep", "scripts") if given.get(name)}
                stand_in.fail(given.get("provider", ""), given["fault"], **how)
            else:
                stand_in.mend(given.get("provider"))
        except ValueError as error:
            self._send(Answer(400, str(error).encode(), "text/plain; charset=utf-8"))
            return
        self._send(Answer(303), Location="/")

    def _send(self, answer: Answer, **headers: str) -> None:
        self.send_response(answer.status)
        if answer.status != 204:
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
        for name, value in {**headers, **page.HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and answer.status != 204:
            self.wfile.write(answer.body)


def _asset(name: str) -> Answer:
    file = ASSETS / name
    return Answer(200, file.read_bytes(), TYPES[file.suffix])
