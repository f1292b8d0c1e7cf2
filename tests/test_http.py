"""``pluginhost.http``, against a server: what travels, what is kept, and that every call ends in time."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from pluginhost import http
from tests.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

PATIENT = (5.0, 5.0)


class Server(ThreadingHTTPServer):
    """Says what it was sent. ``/drip`` answers a byte every tenth of a second, ``/there`` redirects.

    ``/hang-up`` is read, and not answered.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections = 0
        self.over = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        if self.path == "/hang-up":
            self.close_connection = True
            return
        self.send_response(302 if self.path == "/there" else 200)
        self.send_header("Location", "/elsewhere")
        self.send_header("Set-Cookie", "who=ann; Path=/")
        self.send_header("Content-Length", "50" if self.path.endswith("/drip") else "2")
        self.end_headers()
        if not self.path.endswith("/drip"):
            self.wfile.write(b"ok")
        while self.path.endswith("/drip") and not self.server.over.wait(0.1):
            self.wfile.write(b".")

    do_POST = do_GET  # noqa: N815 - the server's own name

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.over.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def client() -> Iterator[http.Client]:
    with closing(http.Client("tests/1.0")) as made:
        yield made


def read(response: requests.Response) -> bytes:
    with response:
        return response.raw.read()


def test_what_travels_is_what_was_said(server, client):
    read(client.call("GET", f"{server.url}/a?b=%20c", timeouts=PATIENT, headers={"X-Own": "1"}))
    read(client.call("POST", f"{server.url}/p", timeouts=PATIENT, body=b"bytes"))
    read(client.call("POST", f"{server.url}/p", timeouts=PATIENT, body=io.BytesIO(b"a file")))

    got, *posted = server.seen
    assert (got[0], got[1], got[3]) == ("GET", "/a?b=%20c", b"")
    assert (got[2]["User-Agent"], got[2]["X-Own"]) == ("tests/1.0", "1")
    assert [(method, body) for method, _, _, body in posted] == [("POST", b"bytes"), ("POST", b"a file")]
    assert "X-Own" not in posted[0][2]
    assert server.connections == 1


def test_nothing_is_followed_or_remembered(server, client, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("default login ann password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    assert client.call("GET", f"{server.url}/there", timeouts=PATIENT).status_code == 302
    read(client.call("GET", f"{server.url}/", timeouts=PATIENT))

    assert [path for _, path, _, _ in server.seen] == ["/there", "/"]
    assert not any(headers.keys() & {"Cookie", "Authorization"} for _, _, headers, _ in server.seen)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("body", [None, b"bytes"])
def test_what_may_have_arrived_is_not_sent_again(server, client, kept, body):
    if kept:
        read(client.call("GET", f"{server.url}/", timeouts=PATIENT))
    with pytest.raises(http.requests.ConnectionError):
        client.call("POST" if body else "GET", f"{server.url}/hang-up", timeouts=PATIENT, body=body)

    assert [path for _, path, _, _ in server.seen] == ["/"] * kept + ["/hang-up"]
    assert server.connections == 1


def test_an_answer_that_never_ends_is_not_waited_for(server, client):
    response = client.call("GET", f"{server.url}/drip", timeouts=(0.3, 0.3))
    assert not http.is_over()

    with response, pytest.raises(Exception, match="timed out|took too long"):
        response.raw.read()
    assert http.is_over()

    assert read(client.call("GET", f"{server.url}/", timeouts=PATIENT)) == b"ok"
    assert not http.is_over()


def test_a_caller_may_end_it_earlier(server, client):
    with client.call("GET", f"{server.url}/drip", timeouts=PATIENT) as response:
        http.at_most(0.2)
        http.at_most(60)
        with pytest.raises(Exception, match="timed out|took too long"):
            response.raw.read()
    assert http.is_over()


def test_the_time_is_each_thread_s_own(server, client):
    client.call("GET", f"{server.url}/drip", timeouts=PATIENT).close()
    http.at_most(-1)
    found = []

    def other() -> None:
        found.append(read(client.call("GET", f"{server.url}/", timeouts=PATIENT)))
        found.append(http.is_over())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(10)
    assert found == [b"ok", False]
    assert http.is_over()


def test_threads_keep_as_many_connections_as_they_were_given(server):
    with closing(http.Client("tests/1.0", connections=3)) as client:
        for _ in range(2):
            answers = [client.call("GET", f"{server.url}/", timeouts=PATIENT) for _ in range(3)]
            assert [read(answer) for answer in answers] == [b"ok"] * 3
    assert server.connections == 3


def test_after_close_it_opens_new_connections(server, client):
    read(client.call("GET", f"{server.url}/", timeouts=PATIENT))
    client.close()
    read(client.call("GET", f"{server.url}/", timeouts=PATIENT))
    assert server.connections == 2


def test_the_proxy_of_the_environment_is_used(server, client, monkeypatch):
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    read(client.call("GET", "http://provider.example/e", timeouts=PATIENT))

    [(_, path, headers, _)] = server.seen
    assert (path, headers["Host"]) == ("http://provider.example/e", "provider.example")


def test_threads_may_meet_at_a_proxy(server, monkeypatch):
    """Whichever of them makes what speaks to the proxy, both calls end in time."""
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    make, both = http.HTTPAdapter.proxy_manager_for, threading.Barrier(2)

    def slowly(*args: object) -> object:
        made = make(*args)
        with suppress(threading.BrokenBarrierError):
            both.wait(0.2)
        return made

    def drip(name: str) -> str:
        with client.call("GET", f"http://{name}.example/drip", timeouts=(0.5, 0.5)) as response:
            with pytest.raises(Exception, match="timed out|took too long"):
                response.raw.read()
        return name

    monkeypatch.setattr(http.HTTPAdapter, "proxy_manager_for", slowly)
    with closing(http.Client("tests/1.0", connections=2)) as client, ThreadPoolExecutor(2) as pool:
        assert [*pool.map(drip, ("a", "b"))] == ["a", "b"]


def test_a_request_without_a_body_says_so(server, client):
    read(client.call("POST", f"{server.url}/", timeouts=PATIENT))
    read(client.call("POST", f"{server.url}/", timeouts=PATIENT, body=b""))

    assert [headers.get("Content-Length") for _, _, headers, _ in server.seen] == ["0", "0"]
    assert not any("Transfer-Encoding" in headers for _, _, headers, _ in server.seen)


FORK = """
import os, sys
from pluginhost import http

def call(path):
    with client.call("GET", sys.argv[1] + path, timeouts=(5, 5)) as response:
        assert response.raw.read() == b"ok"

client = http.Client("tests/1.0")
call("/before")
child = os.fork()
call("/in-the-child" if child == 0 else "/in-the-parent")
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
call("/after")
"""


def test_a_child_of_a_fork_opens_its_own_connections(server):
    ran = subprocess.run([sys.executable, "-c", FORK, server.url], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert ran.returncode == 0, ran.stderr
    assert sorted(path for _, path, _, _ in server.seen) == ["/after", "/before", "/in-the-child", "/in-the-parent"]
    assert server.connections == 2
