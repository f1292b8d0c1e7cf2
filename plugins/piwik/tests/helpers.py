"""What the tests share: events, a plugin object, and a server in Matomo's place at the edge of the network."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

from pluginhost import Batch, Context, Event
from pluginhost.events import new_message_id
from pluginhost.options import build
from pluginhost.plugin import LaneOptions
from pluginhost_piwik.plugin import Piwik

NOW = dt.datetime(2026, 11, 21, 12, 0, 30, tzinfo=dt.UTC)
NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
NOON_UNIX = "1795262400"
TOKEN = "0123456789abcdef0123456789abcdef"
HOSTILE = "</script><script>alert(1)</script>'\"\\\u2028\u2029{{7*7}}😀<!--"
GIF = b"GIF89a\x01\x00\x01\x00"
PAGE = Context(
    ip="192.0.2.0",
    user_agent="Mozilla/5.0 (X11) Firefox/140.0",
    language="de-de,de;q=0.9",
    url="https://shop.example/products/7/?utm_source=mail",
    referrer="https://www.example.org/",
    path="/products/7/",
)


def event(name: str = "signed up", type_: Any = "track", **fields: Any) -> Event:
    fields = {"message_id": new_message_id(), "timestamp": NOON, **fields}
    tuned = fields.pop("tuned", None)
    if tuned is not None:
        fields["plugins"] = {"piwik": tuned}
    return Event(type=type_, name=name, **fields)


def fresh(name: str = "signed up", type_: Any = "track", **fields: Any) -> Event:
    """An event of now, for what is read by the real clock."""
    return event(name, type_, timestamp=dt.datetime.now(dt.UTC), **fields)


def plugin(
    url: str = "https://stats.example/", alias: str = "piwik", lane: dict | None = None, **options: Any
) -> Piwik:

    problems, built = build(Piwik.Options, {"URL": url, "SITE_ID": 1, **options})
    assert not problems, problems
    return Piwik(alias, built, LaneOptions(**(lane or {})))


def deliver(of: Piwik, *events: Event, attempt: int = 1) -> None:
    of.setup()
    try:
        of.aggregate(Batch(events, attempt=attempt))
    finally:
        of.close()


def answer(tracked: int, invalid: int = 0, status: str = "success", **more: Any) -> bytes:
    return json.dumps({"status": status, "tracked": tracked, "invalid": invalid, **more}).encode()


class FakeMatomo:
    """Records requests, and answers what a test has put into ``answers``: (status, headers, body) or a function.

    Without an answer it says that everything was tracked.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.connections: set[int] = set()
        self.answers: list[Any] = []
        self.poison: str | None = None
        """A request with this in one of its hits is undone, as Matomo does when a hit makes it fail."""
        self.most: int | None = None
        """A request with more hits is recorded, and then not answered."""
        self.recorded: Counter[str] = Counter()
        """Name of an event -> how often it was recorded, answered or not, for requests without a prepared answer."""
        self.api: Any = None
        """What answers calls of the Reporting API: a function of the method and the form, to what is sent as JSON."""
        self.calls: list[tuple[str, dict[str, str]]] = []
        """Those calls."""
        self.ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def hits(self) -> list[dict[str, str]]:
        """The parameters of all hits that came in bulk requests."""
        return [
            dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True, strict_parsing=True))
            for request in self.requests
            for query in request["json"]["requests"]
        ]

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(fake: FakeMatomo) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            fake.connections.add(self.client_address[1])
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path.startswith("/index.php"):
                self._report(content.decode())
                return
            fake.requests.append({"path": self.path, "headers": dict(self.headers), "json": json.loads(content)})
            sent = fake.requests[-1]["json"]["requests"]
            if fake.answers:
                chosen = fake.answers.pop(0)
            else:
                chosen = (200, {"Content-Type": "application/json"}, answer(len(sent)))
                fake.recorded.update(dict(parse_qsl(query))["e_a"] for query in sent if "e_a=" in query)
                if fake.most is not None and len(sent) > fake.most:
                    self.close_connection = True
                    return
            if fake.poison and fake.poison in content.decode():
                chosen = (500, {"Content-Type": "application/json"}, answer(0, 0, "error"))
            if callable(chosen):
                chosen(self)
                return
            status, headers, body = chosen
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _report(self, content: str) -> None:
            query = dict(parse_qsl(self.path.partition("?")[2], strict_parsing=True))
            form = dict(parse_qsl(content, keep_blank_values=True, strict_parsing=True))
            assert (query["module"], query["format"]) == ("API", "json")
            assert self.headers["Content-Type"] == "application/x-www-form-urlencoded"
            fake.calls.append((query["method"], form))
            given = fake.api(query["method"], form)
            status, body = given if isinstance(given, tuple) else (200, json.dumps(given).encode())
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None: ...

    return Handler
