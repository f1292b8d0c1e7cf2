"""The client against a real server: what arrives, what every answer means, and what nobody may read."""

from __future__ import annotations

import datetime as dt
import errno
import logging
import socket
import struct
import threading
import traceback
from contextlib import closing
from email.utils import format_datetime

import pytest
import requests

from pluginhost import DeliveryError, PermanentError, RetryableError
from pluginhost_kissmetrics import client
from pluginhost_kissmetrics.client import send
from tests.servers import free_port

KEY = "0123456789abcdef0123456789abcdef01234567"
SENT = {"_k": KEY, "_p": "bob@bob.com", "_n": "Signed Up", "_t": "5", "_d": "1", "Plan": "pro & more"}
TIMEOUTS = (2.0, 10.0)


@pytest.fixture
def connected():
    with closing(client.connect()) as made:
        yield made


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def test_a_call_is_a_get(connected, receiver):
    send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)

    (hit,) = receiver.hits
    assert (hit.method, hit.path, hit.parameters) == ("GET", "/e", list(SENT.items()))
    assert hit.headers["User-Agent"].startswith("pluginhost-kissmetrics/")


def test_a_long_call_is_a_form(connected, receiver):
    sent = {**SENT, **{f"property {n}": "ü" * 100 for n in range(10)}}
    send(connected, f"{receiver.url}/s", sent, TIMEOUTS)

    (hit,) = receiver.hits
    assert (hit.method, hit.path, hit.parameters) == ("POST", "/s", list(sent.items()))
    assert hit.headers["Content-Type"] == "application/x-www-form-urlencoded; charset=utf-8"


@pytest.mark.parametrize(("length", "method"), [(2048, "GET"), (2049, "POST")])
def test_how_long_is_long(connected, receiver, length, method):
    send(connected, f"{receiver.url}/e", {"_k": "x" * (length - 3)}, TIMEOUTS)

    assert receiver.hits[0].method == method


def test_one_connection_serves_many_calls(connected, receiver):
    for _ in range(5):
        send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)
    send(connected, f"{receiver.url}/e", {**SENT, "long": "x" * 3000}, TIMEOUTS)
    receiver.status(503)
    with pytest.raises(RetryableError):
        send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)
    with pytest.raises(RetryableError):
        send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)

    assert len(receiver.hits) == 8
    assert receiver.connections == 1


def test_a_connection_with_a_long_answer_is_not_used_again(connected, receiver):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        handler.wfile.write(b"x" * 1_000_000)

    receiver.answer = answer
    send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)
    receiver.answer = None
    send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)

    assert receiver.connections == 2


def test_an_answer_in_chunks_keeps_the_connection(connected, receiver):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    receiver.answer = answer
    send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)
    send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)

    assert receiver.connections == 1


def test_an_answer_that_breaks_off_was_an_answer(connected, receiver):
    receiver.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\nGIF")
    send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)

    assert len(receiver.hits) == 1


def test_no_cookie_of_the_receiver_is_sent_back(connected, receiver):
    for _ in range(2):
        send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)

    assert "Cookie" not in receiver.hits[1].headers


@pytest.mark.parametrize("status", [200, 201, 204, 206])
def test_success(connected, receiver, status):
    receiver.status(status)
    send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)

    assert len(receiver.hits) == 1


def test_a_page_of_html_is_no_answer_of_kissmetrics(connected, receiver):
    receiver.status(200, **{"Content-Type": "text/HTML; charset=utf-8"})

    with pytest.raises(RetryableError, match="a page of HTML"):
        send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)


@pytest.mark.parametrize("status", [401, 403, 404, 407, 408, 425, 429, 500, 501, 502, 503, 504, 599])
def test_what_may_pass_is_tried_again(connected, receiver, status):
    receiver.status(status)

    with pytest.raises(RetryableError, match=str(status)) as raised:
        send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)
    assert raised.value.retry_after is None


@pytest.mark.parametrize("status", [413, 414, 431])
def test_what_is_too_long_is_final(connected, receiver, status):
    receiver.status(status)

    with pytest.raises(PermanentError, match=f"status {status}.*too long"):
        send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)


@pytest.mark.parametrize("status", [400, 405, 411, 415, 422])
def test_what_a_wrong_address_answers_too_is_not_final(connected, receiver, status):
    receiver.status(status)

    with pytest.raises(DeliveryError, match=f"status {status}.*TRACKING_URL.*proxy") as raised:
        send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)
    assert type(raised.value) is DeliveryError, "the others are tried, and it is tried again"


@pytest.mark.parametrize(
    ("status", "what"), [(404, "TRACKING_URL"), (407, "proxy"), (429, "busy"), (503, "busy"), (500, "failed there")]
)
def test_who_answered_and_what_to_look_at(connected, receiver, status, what):
    receiver.status(status)

    with pytest.raises(RetryableError) as raised:
        send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)
    told = str(raised.value)
    assert receiver.url.removeprefix("http://") in told
    assert "BaseHTTP/" in told, "the software that answered"
    assert what in told


def test_what_an_answer_says_of_its_software_is_not_believed(connected, receiver):
    receiver.raw(b"HTTP/1.1 500 No\r\nServer: <script>\x1b[31m\r\nContent-Length: 0\r\n\r\n")

    with pytest.raises(RetryableError) as raised:
        send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)
    assert "script" not in str(raised.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("long", ["", "x" * 3000], ids=["get", "post"])
def test_a_redirect_is_not_followed(connected, receiver, status, long):
    receiver.status(status, Location=f"{receiver.url}/elsewhere")

    with pytest.raises(RetryableError, match=f"redirected with status {status}.*TRACKING_URL"):
        send(connected, f"{receiver.url}/e", {**SENT, "long": long}, TIMEOUTS)
    assert [hit.path for hit in receiver.hits] == ["/e"]


@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_was_asked_for(connected, receiver, status):
    receiver.status(status, Retry_After="120")

    with pytest.raises(RetryableError) as raised:
        send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)
    assert raised.value.retry_after == 120


def test_the_wait_that_was_asked_for_as_a_date(connected, receiver):
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    receiver.status(429, Retry_After=format_datetime(moment, usegmt=True))

    with pytest.raises(RetryableError) as raised:
        send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)
    assert 3000 < raised.value.retry_after <= 3600


# --- no answer ---


def no_one(receiver):
    return f"http://127.0.0.1:{free_port()}"


def silence(receiver):
    receiver.answer = lambda handler: receiver.leave.wait()
    return receiver.url


def garbage(receiver):
    receiver.raw(b"\x00\xff nothing that is HTTP\r\n\r\n")
    return receiver.url


def hangs_up(receiver):
    receiver.raw(b"")
    return receiver.url


def reset(receiver):
    def answer(handler):
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True

    receiver.answer = answer
    return receiver.url


def drip_of_the_status(receiver):
    receiver.drip(b"HTTP/1.1 200 OK, and this is what takes so long\r\nContent-Length: 0\r\n\r\n")
    return receiver.url


def drip_of_the_headers(receiver):
    receiver.drip(b"x" * 50 + b"\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-Slow: ")
    return receiver.url


def drip_of_a_first_answer(receiver):
    receiver.drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    return receiver.url


def no_tls(receiver):
    return receiver.url.replace("http:", "https:")


def no_host(receiver):
    return "http://" + "x" * 70 + ".invalid"


def redirect_to_nonsense(receiver):
    receiver.status(302, Location="http://[")
    return receiver.url


UNREACHED = [
    (no_one, r"127\.0\.0\.1:\d+ refused the connection"),
    (silence, "was reached, but did not answer in time"),
    (drip_of_the_status, "was reached, but did not answer in time"),
    (drip_of_the_headers, "was reached, but did not answer in time"),
    (drip_of_a_first_answer, "was reached, but did not answer in time"),
    (garbage, "was reached, but answered what is not HTTP"),
    (hangs_up, "was reached, but hung up without an answer"),
    (reset, "was reached, but hung up without an answer"),
    (no_tls, r"TLS with 127\.0\.0\.1:\d+ failed"),
    (no_host, "was not reached: "),
    (redirect_to_nonsense, "redirected with status 302"),
]


@pytest.mark.parametrize(("fault", "reason"), UNREACHED, ids=lambda each: getattr(each, "__name__", ""))
def test_without_an_answer_it_is_tried_again(connected, receiver, fault, reason, caplog):
    caplog.set_level(logging.DEBUG)
    url = fault(receiver)

    with pytest.raises(RetryableError, match=reason) as raised:
        send(connected, f"{url}/e", SENT, (0.3, 0.3))

    told = "".join(traceback.format_exception(raised.value)) + caplog.text
    assert raised.value.__context__ is None, "it would tell the URL"
    assert KEY not in told
    assert "bob" not in told
    assert "pro " not in told


def test_a_server_that_takes_no_connections(connected):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = deaf.getsockname()
        others = [socket.socket() for _ in range(8)]  # they fill its queue
        try:
            for other in others:
                other.setblocking(False)
                other.connect_ex(address)
            with pytest.raises(RetryableError, match="was not reached in time|did not answer in time"):
                send(connected, f"http://127.0.0.1:{address[1]}/e", SENT, (0.2, 0.2))
        finally:
            for other in others:
                other.close()


def test_a_name_that_is_not_known(connected, monkeypatch):
    def look_up(*_args, **_kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(RetryableError, match=r"the name of trk\.example was not found: is TRACKING_URL right"):
        send(connected, "http://trk.example/e", SENT, TIMEOUTS)


def test_a_network_that_is_not_there(connected, monkeypatch):
    def connect(*_args, **_kwargs):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(RetryableError, match=r"127\.0\.0\.1:9 was not reached: Network is unreachable"):
        send(connected, "http://127.0.0.1:9/e", SENT, TIMEOUTS)


def test_a_look_up_that_hangs_ends_with_the_call(connected, receiver, monkeypatch):
    found = socket.getaddrinfo
    looked_up = threading.Event()

    def look_up(*args, **kwargs):
        receiver.leave.wait(5)
        try:
            return found(*args, **kwargs)
        finally:
            looked_up.set()

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(RetryableError, match="was not reached in time"):
        send(connected, f"{receiver.url}/e", SENT, (0.2, 0.2))
    receiver.leave.set()
    assert looked_up.wait(5)
    assert receiver.hits == []


def test_a_body_that_drips_is_not_waited_for(connected, receiver):
    receiver.drip(b"x" * 43, b"HTTP/1.1 200 OK\r\nContent-Type: image/gif\r\nContent-Length: 43\r\n\r\n")
    send(connected, f"{receiver.url}/e", SENT, (10.0, 10.0))
    receiver.answer = None
    send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)

    assert receiver.connections == 2, "the first one still drips"


def test_after_a_drip_the_next_call_has_its_own_time(connected, receiver):
    drip_of_the_headers(receiver)
    with pytest.raises(RetryableError):
        send(connected, f"{receiver.url}/e", SENT, (0.1, 0.1))
    receiver.answer = None
    for _ in range(2):
        send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)

    assert (len(receiver.hits), receiver.connections) == (3, 2)


# --- proxies, and passwords ---


@pytest.fixture
def proxy(monkeypatch, receiver):
    """The receiver is the proxy of the environment."""
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, receiver.url.replace("//", "//porter:opensesame@"))
    return receiver


def test_a_proxy_of_the_environment_is_used(connected, proxy):
    send(connected, "http://trk.example/e", SENT, TIMEOUTS)

    (hit,) = proxy.hits
    assert (hit.path, hit.headers["Host"]) == ("/e", "trk.example")
    assert hit.headers["Proxy-Authorization"] == "Basic cG9ydGVyOm9wZW5zZXNhbWU="


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("fault", [drip_of_the_status, drip_of_the_headers])
def test_a_proxy_that_drips(connected, proxy, scheme, fault):
    fault(proxy)

    with pytest.raises(RetryableError, match="in time"):
        send(connected, f"{scheme}://trk.example/e", SENT, (0.3, 0.3))


def test_a_proxy_that_refuses(connected, proxy):
    proxy.status(407)

    with pytest.raises(RetryableError, match="the proxy of the environment.*HTTPS_PROXY") as raised:
        send(connected, "https://trk.example/e", SENT, TIMEOUTS)
    assert "opensesame" not in "".join(traceback.format_exception(raised.value))


def test_a_proxy_that_is_not_there(connected, monkeypatch, proxy):
    monkeypatch.setenv("http_proxy", f"http://porter:opensesame@127.0.0.1:{free_port()}")

    with pytest.raises(RetryableError, match="the proxy of the environment") as raised:
        send(connected, "http://trk.example/e", SENT, TIMEOUTS)
    assert "opensesame" not in "".join(traceback.format_exception(raised.value))


def test_no_password_is_taken_from_a_file(connected, receiver, monkeypatch, tmp_path):
    file = tmp_path / "netrc"
    file.write_text("default login bob password hunter2\n")
    monkeypatch.setenv("NETRC", str(file))

    send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)
    send(connected, f"{receiver.url}/e", {**SENT, "long": "x" * 3000}, TIMEOUTS)

    assert ["Authorization" in hit.headers for hit in receiver.hits] == [False, False]


# --- logs ---


def test_no_log_shows_what_is_sent(connected, receiver, caplog):
    caplog.set_level(logging.DEBUG)
    send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)

    assert '"GET /e?… HTTP/1.1" 200' in caplog.text
    assert KEY not in caplog.text
    assert "bob" not in caplog.text


def test_no_log_of_an_odd_answer_shows_what_is_sent(connected, receiver, caplog):
    caplog.set_level(logging.DEBUG)
    receiver.raw(b"HTTP/1.1 200 OK\r\nContent-")
    send(connected, f"{receiver.url}/e", SENT, TIMEOUTS)

    assert "Failed to parse headers" in caplog.text
    assert KEY not in caplog.text
    assert "bob" not in caplog.text


def test_what_others_log_stays_as_it_is(connected, receiver, caplog):
    caplog.set_level(logging.DEBUG)
    with requests.Session() as another:
        another.get(f"{receiver.url}/other?page=2&_k=x", timeout=5)

    assert "/other?page=2&_k=x" in caplog.text
