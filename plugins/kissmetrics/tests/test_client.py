"""The client against a real server: what arrives, what every answer means, and what nobody may read."""

from __future__ import annotations

import datetime as dt
import logging
import socket
import traceback
from email.utils import format_datetime

import pytest
import requests

from pluginhost import PermanentError, RetryableError
from pluginhost_kissmetrics import client
from pluginhost_kissmetrics.client import retry_after, send
from tests.servers import free_port

KEY = "0123456789abcdef0123456789abcdef01234567"
SENT = {"_k": KEY, "_p": "bob@bob.com", "_n": "Signed Up", "_t": "5", "_d": "1", "Plan": "pro & more"}
TIMEOUTS = (2.0, 10.0)


@pytest.fixture
def session():
    with client.connect() as made:
        yield made


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def test_a_call_is_a_get(session, receiver):
    send(session, f"{receiver.url}/e", SENT, TIMEOUTS)

    (hit,) = receiver.hits
    assert (hit.method, hit.path, hit.parameters) == ("GET", "/e", list(SENT.items()))
    assert hit.headers["User-Agent"].startswith("pluginhost-kissmetrics/")


def test_a_long_call_is_a_form(session, receiver):
    sent = {**SENT, **{f"property {n}": "ü" * 100 for n in range(10)}}
    send(session, f"{receiver.url}/s", sent, TIMEOUTS)

    (hit,) = receiver.hits
    assert (hit.method, hit.path, hit.parameters) == ("POST", "/s", list(sent.items()))
    assert hit.headers["Content-Type"] == "application/x-www-form-urlencoded; charset=utf-8"


@pytest.mark.parametrize(("length", "method"), [(2048, "GET"), (2049, "POST")])
def test_how_long_is_long(session, receiver, length, method):
    send(session, f"{receiver.url}/e", {"_k": "x" * (length - 3)}, TIMEOUTS)

    assert receiver.hits[0].method == method


def test_one_connection_serves_many_calls(session, receiver):
    for _ in range(5):
        send(session, f"{receiver.url}/e", SENT, TIMEOUTS)
    send(session, f"{receiver.url}/e", {**SENT, "long": "x" * 3000}, TIMEOUTS)
    receiver.status(503)
    with pytest.raises(RetryableError):
        send(session, f"{receiver.url}/e", SENT, TIMEOUTS)
    with pytest.raises(RetryableError):
        send(session, f"{receiver.url}/e", SENT, TIMEOUTS)

    assert len(receiver.hits) == 8
    assert receiver.connections == 1


def test_a_connection_with_a_long_answer_is_not_used_again(session, receiver):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        handler.wfile.write(b"x" * 1_000_000)

    receiver.answer = answer
    send(session, f"{receiver.url}/e", SENT, TIMEOUTS)
    receiver.answer = None
    send(session, f"{receiver.url}/e", SENT, TIMEOUTS)

    assert receiver.connections == 2


def test_an_answer_in_chunks_keeps_the_connection(session, receiver):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    receiver.answer = answer
    send(session, f"{receiver.url}/e", SENT, TIMEOUTS)
    send(session, f"{receiver.url}/e", SENT, TIMEOUTS)

    assert receiver.connections == 1


def test_an_answer_that_breaks_off_was_an_answer(session, receiver):
    receiver.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\nGIF")
    send(session, f"{receiver.url}/e", SENT, TIMEOUTS)

    assert len(receiver.hits) == 1


def test_no_cookie_of_the_receiver_is_sent_back(session, receiver):
    for _ in range(2):
        send(session, f"{receiver.url}/e", SENT, TIMEOUTS)

    assert "Cookie" not in receiver.hits[1].headers


@pytest.mark.parametrize("status", [200, 201, 204, 206])
def test_success(session, receiver, status):
    receiver.status(status)
    send(session, f"{receiver.url}/e", SENT, TIMEOUTS)

    assert len(receiver.hits) == 1


def test_a_page_of_html_is_no_answer_of_kissmetrics(session, receiver):
    receiver.status(200, **{"Content-Type": "text/HTML; charset=utf-8"})

    with pytest.raises(RetryableError, match="a page of HTML"):
        send(session, f"{receiver.url}/e", SENT, TIMEOUTS)


@pytest.mark.parametrize("status", [401, 403, 404, 407, 408, 425, 429, 500, 501, 502, 503, 504, 599])
def test_what_may_pass_is_tried_again(session, receiver, status):
    receiver.status(status)

    with pytest.raises(RetryableError, match=str(status)) as raised:
        send(session, f"{receiver.url}/e", SENT, TIMEOUTS)
    assert raised.value.retry_after is None


@pytest.mark.parametrize("status", [400, 405, 411, 413, 414, 415, 422, 431])
def test_what_speaks_of_one_request_is_final(session, receiver, status):
    receiver.status(status)

    with pytest.raises(PermanentError, match=f"status {status}"):
        send(session, f"{receiver.url}/e", SENT, TIMEOUTS)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("long", ["", "x" * 3000], ids=["get", "post"])
def test_a_redirect_is_not_followed(session, receiver, status, long):
    receiver.status(status, Location=f"{receiver.url}/elsewhere")

    with pytest.raises(RetryableError, match=f"redirected with status {status}.*TRACKING_URL"):
        send(session, f"{receiver.url}/e", {**SENT, "long": long}, TIMEOUTS)
    assert [hit.path for hit in receiver.hits] == ["/e"]


@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_was_asked_for(session, receiver, status):
    receiver.status(status, Retry_After="120")

    with pytest.raises(RetryableError) as raised:
        send(session, f"{receiver.url}/e", SENT, TIMEOUTS)
    assert raised.value.retry_after == 120


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        (" 30 ", 30),
        ("soon", None),
        ("-5", None),
        ("1e3", None),
        ("٣", None),
        ("", None),
        ("Fri, 32 Dec 1999 23:59:59 GMT", None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
        ("Fri, 31 Dec 1999 23:59:59 -0000", 0),
    ],
)
def test_retry_after(header, seconds):
    assert retry_after(header) == seconds


def test_retry_after_as_a_date():
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)

    assert 3000 < retry_after(format_datetime(moment, usegmt=True)) <= 3600


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


def half_a_head(receiver):
    receiver.raw(b"HTTP/1.1 200 OK\r\nContent-")
    return receiver.url


def no_tls(receiver):
    return receiver.url.replace("http:", "https:")


def no_host(receiver):
    return "http://" + "x" * 70 + ".invalid"


def redirect_to_nonsense(receiver):
    receiver.status(302, Location="http://[")
    return receiver.url


UNREACHED = [
    (no_one, "was not reached: ConnectionError"),
    (silence, "did not answer in time"),
    (garbage, "was not reached: ConnectionError"),
    (hangs_up, "was not reached: ConnectionError"),
    (no_tls, "TLS with KISSmetrics failed"),
    (no_host, "was not reached: "),
    (redirect_to_nonsense, "redirected with status 302"),
]


@pytest.mark.parametrize(("fault", "reason"), UNREACHED, ids=lambda each: getattr(each, "__name__", ""))
def test_without_an_answer_it_is_tried_again(session, receiver, fault, reason, caplog):
    caplog.set_level(logging.DEBUG)
    url = fault(receiver)

    with pytest.raises(RetryableError, match=reason) as raised:
        send(session, f"{url}/e", SENT, (0.5, 0.2))

    told = "".join(traceback.format_exception(raised.value)) + caplog.text
    assert raised.value.__context__ is None, "it would tell the URL"
    assert KEY not in told
    assert "bob" not in told
    assert "pro " not in told


def test_a_server_that_takes_no_connections(session):
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
                send(session, f"http://127.0.0.1:{address[1]}/e", SENT, (0.2, 0.2))
        finally:
            for other in others:
                other.close()


def test_no_log_shows_what_is_sent(session, receiver, caplog):
    caplog.set_level(logging.DEBUG)
    send(session, f"{receiver.url}/e", SENT, TIMEOUTS)

    assert '"GET /e?… HTTP/1.1" 200' in caplog.text
    assert KEY not in caplog.text
    assert "bob" not in caplog.text


def test_what_others_log_stays_as_it_is(session, receiver, caplog):
    caplog.set_level(logging.DEBUG)
    with requests.Session() as another:
        another.get(f"{receiver.url}/other?page=2&_k=x", timeout=5)

    assert "/other?page=2&_k=x" in caplog.text
