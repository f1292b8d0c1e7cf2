"""The client against a real server: what travels, what is kept, and what every way to fail is called."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading

import pytest

from pluginhost import DeliveryError, PermanentError, RetryableError, UncertainError
from pluginhost_piwik import client as client_module
from pluginhost_piwik.client import Client
from plugins.piwik.tests.helpers import GIF, HOSTILE, TOKEN, answer
from tests.servers import free_port

HIT = {"idsite": "1", "rec": "1", "e_c": "a b", "e_a": HOSTILE, "cdt": "1795262400"}


@pytest.fixture
def client(matomo):
    client = Client(f"{matomo.url}matomo.php?queuedtracking=0", TOKEN, connect=2, read=20)
    yield client
    client.close()


def impatient(url: str) -> Client:
    return Client(url, TOKEN, connect=0.2, read=0.2)


def test_one_post_of_json_with_the_token_in_the_body_alone(matomo, client):
    answered = client.send([HIT, {"idsite": "1", "rec": "1", "action_name": "a&b=c"}])

    assert (answered.tracked, answered.invalid) == (2, 0)
    [request] = matomo.requests
    assert request["path"] == "/matomo.php?queuedtracking=0"
    assert set(request["json"]) == {"requests", "token_auth"}
    assert request["json"]["token_auth"] == TOKEN
    assert request["json"]["requests"][1] == "?idsite=1&rec=1&action_name=a%26b%3Dc"
    assert matomo.hits[0] == HIT
    assert request["headers"]["Content-Type"] == "application/json"
    assert TOKEN not in request["path"] + json.dumps(request["headers"]) + json.dumps(request["json"]["requests"])


@pytest.mark.parametrize("name", ["uid", "_id", "cip", "ec_id", "ec_items", "search", "dimension1"])
def test_who_a_person_is_does_not_stay_in_memory(name):
    value = "".join(("ann", "@example.org"))
    before = sys.getrefcount(value)

    assert b"ann%40example.org" in client_module.body([{name: value}], TOKEN)
    assert sys.getrefcount(value) == before


def test_without_a_token_none_is_sent(matomo):
    client = Client(matomo.url, connect=2, read=20)
    client.send([HIT])
    client.close()
    assert set(matomo.requests[0]["json"]) == {"requests"}


def test_the_user_agent_is_none_that_matomo_takes_for_a_bot(matomo, client):
    client.send([HIT])
    sent = matomo.requests[0]["headers"]["User-Agent"].lower()
    assert "python-requests/" in sent
    assert not any(word in sent for word in ("bot", "crawl", "fetcher", "monitor", "script", "proxy", "checker"))


def test_the_connection_is_kept(matomo, client):
    for _ in range(3):
        client.send([HIT])
    assert (len(matomo.requests), len(matomo.connections)) == (3, 1)


def test_a_connection_that_was_idle_for_long_is_not_used_again(matomo, client, monkeypatch):
    client.send([HIT])
    monkeypatch.setattr(client_module, "MAX_IDLE", -1.0)
    client.send([HIT])
    assert len(matomo.connections) == 2


def test_cookies_of_the_tracker_are_not_sent_back(matomo, client):
    matomo.answers.append((200, {"Set-Cookie": "_pk_uid=0123456789abcdef; Path=/"}, answer(1)))
    client.send([HIT])
    client.send([HIT])
    assert "Cookie" not in matomo.requests[1]["headers"]


def test_a_password_for_the_host_in_netrc_is_left_there(matomo, client, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    client.send([HIT])
    assert "Authorization" not in matomo.requests[0]["headers"]


def test_each_thread_has_a_connection_of_its_own(matomo, client):
    client.send([HIT])
    thread = threading.Thread(target=client.send, args=([HIT],))
    thread.start()
    thread.join()
    assert len(matomo.connections) == 2


def test_redirects_are_not_followed(matomo, client):
    matomo.answers.append((301, {"Location": f"{matomo.url}elsewhere?x=1"}, b""))
    with pytest.raises(RetryableError, match="answered 301, a redirect to http://127.0.0.1:"):
        client.send([HIT])
    assert len(matomo.requests) == 1


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind"),
    [
        (200, {"Content-Type": "text/html"}, b"<html>", UncertainError),
        (200, {}, b"This resource is part of Matomo.", RetryableError),
        (400, {}, b"This resource is part of Matomo.", DeliveryError),
        (413, {}, b"", PermanentError),
        (500, {}, b"<h1>Sorry</h1>", UncertainError),
        (404, {}, b"", DeliveryError),
        (429, {"Retry-After": "17"}, b"", RetryableError),
        (500, {}, answer(0, 0, "error"), DeliveryError),
        (503, {"Content-Type": "image/gif"}, GIF, RetryableError),
        (504, {}, b"", UncertainError),
    ],
)
def test_answers_become_errors_that_name_the_host_and_nothing_else(matomo, client, status, headers, body, kind):
    matomo.answers.append((status, headers, body))
    with pytest.raises(DeliveryError) as caught:
        client.send([HIT])
    assert type(caught.value) is kind
    host = matomo.url.removeprefix("http://").rstrip("/")
    assert str(caught.value).startswith(f"{host} answered {status}")
    assert getattr(caught.value, "retry_after", None) == (17.0 if status == 429 else None)
    assert TOKEN not in repr(caught.value)
    assert "?" not in str(caught.value).removesuffix("?")


def test_an_image_is_an_answer_without_numbers(matomo, client):
    matomo.answers.append((200, {"Content-Type": "image/gif"}, GIF))
    assert client.send([HIT]).counted is False


def test_a_compressed_answer_of_any_size_is_read(matomo, client):
    import gzip

    body = gzip.compress(answer(1) + b" " * 1_000_000)
    matomo.answers.append((200, {"Content-Encoding": "gzip"}, body))
    assert client.send([HIT]).tracked == 1


def test_no_connection_is_retried():
    refused = r"127\.0\.0\.1:\d+ can't be reached: (ConnectionRefused|NewConnection)Error"
    with pytest.raises(RetryableError, match=refused):
        impatient(f"http://127.0.0.1:{free_port()}/matomo.php").send([HIT])


def test_a_host_that_nobody_knows_is_retried():
    with pytest.raises(RetryableError, match=r"stats\.invalid can't be reached: "):
        impatient("http://stats.invalid/matomo.php").send([HIT])


def test_a_server_that_speaks_no_tls_is_retried(matomo):
    with pytest.raises(RetryableError, match=r"can't be reached: SSL"):
        impatient(matomo.url.replace("http:", "https:")).send([HIT])
    assert matomo.requests == []


def test_a_server_that_does_not_answer_is_uncertain(matomo):
    matomo.answers.append(lambda handler: matomo.ended.wait(20))
    client = impatient(matomo.url)
    with pytest.raises(UncertainError, match=r"did not answer: (Read)?Timeout(Error)?"):
        client.send([HIT])
    client.close()
    assert len(matomo.requests) == 1


def test_a_connection_that_breaks_before_the_answer_is_uncertain(matomo, client):
    matomo.answers.append(lambda handler: handler.connection.shutdown(socket.SHUT_RDWR))
    with pytest.raises(UncertainError, match="did not answer"):
        client.send([HIT])
    assert client.send([HIT]).tracked == 1


def test_a_connection_that_breaks_within_the_answer_is_uncertain(matomo, client):
    def half(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)

    matomo.answers.append(half)
    with pytest.raises(UncertainError):
        client.send([HIT])


@pytest.mark.parametrize(
    ("status", "kind"),
    [(408, RetryableError), (425, RetryableError), (429, RetryableError), (501, RetryableError), (503, RetryableError),
     (302, RetryableError), (400, DeliveryError), (403, DeliveryError), (413, PermanentError)],
)  # fmt: skip
def test_a_body_that_breaks_off_does_not_matter_where_the_status_says_it_all(matomo, client, status, kind):
    def half(handler):
        handler.wfile.write(f"HTTP/1.1 {status} No\r\nRetry-After: 9\r\nContent-Length: 500\r\n\r\nhalf".encode())
        handler.close_connection = True

    matomo.answers.append(half)
    with pytest.raises(DeliveryError, match=f"answered {status}") as caught:
        client.send([HIT])
    assert type(caught.value) is kind
    assert getattr(caught.value, "retry_after", 9.0) == (None if status == 302 else 9.0)
    assert client.send([HIT]).tracked == 1


DRIPS = {
    "status line": (b"", b"HTTP/1.1 200 " + b"O" * 100),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X: 1\r\n" * 20),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", answer(1) + b" " * 60),
    "body without a length": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", answer(1) + b" " * 60),
    "body in chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 20),
}


@pytest.mark.parametrize("place", DRIPS)
@pytest.mark.parametrize("kept", [False, True])
def test_an_answer_that_comes_byte_by_byte_is_not_waited_for(matomo, place, kept):
    """Each byte comes within READ_TIMEOUT; all of them take ten seconds."""
    at_once, slowly = DRIPS[place]

    def drip(handler):
        handler.close_connection = True
        handler.wfile.write(at_once)
        with contextlib.suppress(OSError):
            for byte in slowly:
                handler.wfile.write(bytes([byte]))
                if matomo.ended.wait(0.1):
                    break

    client = Client(matomo.url, TOKEN, connect=0.3, read=0.3)
    if kept:
        client.send([HIT])
    matomo.answers.append(drip)
    with pytest.raises(UncertainError, match=r"did not answer: no whole answer within 0\.6 s"):
        client.send([HIT])
    assert client.send([HIT]).tracked == 1
    client.close()
    assert len(matomo.requests) == 2 + kept


def test_a_request_without_hits_asks_whether_matomo_answers(matomo, client):
    client.ask()
    assert matomo.requests[0]["json"] == {"requests": [], "token_auth": TOKEN}


@pytest.mark.parametrize(
    ("status", "headers", "body", "answers"),
    [
        (200, {}, answer(0), True),
        (200, {"Content-Type": "image/gif"}, GIF, True),
        (204, {}, b"", True),
        (400, {}, b"This resource is part of Matomo.", True),
        (500, {}, answer(0, 0, "error"), True),
        (200, {"Content-Type": "text/html"}, b"<h1>Log in</h1>", False),
        (301, {}, b"", False),
        (500, {}, b"<h1>Sorry</h1>", False),
        (502, {}, b"", False),
        (503, {"Retry-After": "9"}, b"", False),
    ],
)
def test_what_is_an_answer_to_a_request_without_hits(matomo, client, status, headers, body, answers):
    matomo.answers.append((status, headers, body))
    if answers:
        client.ask()
    else:
        with pytest.raises(RetryableError) as caught:
            client.ask()
        assert caught.value.retry_after == (9.0 if status == 503 else None)


def test_no_error_shows_what_was_sent(matomo):
    matomo.answers += [lambda handler: handler.connection.shutdown(socket.SHUT_RDWR), (500, {}, b"")]
    client = impatient(f"{matomo.url}matomo.php?queuedtracking=0")
    for _ in range(2):
        with pytest.raises(DeliveryError) as caught:
            client.send([HIT])
        shown = repr(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        assert not any(part in shown for part in (TOKEN, "queuedtracking", "alert", "matomo.php"))
    client.close()
