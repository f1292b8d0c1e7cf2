"""What an answer means for the events of a request: one row of the table a test."""

from __future__ import annotations

import pytest

from pluginhost import DeliveryError, PermanentError, RetryableError, UncertainError
from pluginhost_piwik.answers import Answer, by_status, read
from plugins.piwik.tests.helpers import GIF, answer

JSON = {"Content-Type": "application/json"}


def judged(status: int = 200, body: bytes = b"", sent: int = 3, **headers: str) -> Answer:
    return read(status, {name.replace("_", "-"): value for name, value in headers.items()}, body, sent)


def test_the_numbers_of_a_success():
    assert judged(body=answer(3)) == Answer(counted=True, tracked=3)
    assert judged(body=answer(2, 1)) == Answer(counted=True, tracked=2, invalid=1)
    assert judged(body=answer(2, 1, invalid_indices=[1])).indices == frozenset({1})


@pytest.mark.parametrize("indices", [[3], [-1], [0, 1], ["1"], "1", None, {}, [[]]])
def test_indices_that_make_no_sense_are_not_believed(indices):
    assert judged(body=answer(2, 1, invalid_indices=indices)).indices is None


def test_warnings_of_php_before_the_answer():
    body = b"<br />\n<b>Deprecated</b>: {closure}() in /a.php on line {3}\n" + answer(3)
    assert judged(body=body) == Answer(counted=True, tracked=3)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, GIF, "image/gif"),
        (200, b"GIF87a", ""),
        (200, b"\x89PNG", "image/png"),
        (204, b"", ""),
    ],
)
def test_taken_without_a_number(status, body, kind):
    assert judged(status, body, Content_Type=kind) == Answer()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>Log in</html>", "text/html; charset=utf-8"),
        (b"", ""),
        (b"null", "application/json"),
        (b'{"ok": true}', "application/json"),
        (b'{"status":"success","tracked":3', "application/json"),
        (b'{"status":"success"}', "application/json"),
        (b'{"status":"ok","tracked":3,"invalid":0}', "application/json"),
        (b'{"status":"success","tracked":"3","invalid":0}', "application/json"),
        (b'{"status":"success","tracked":-3,"invalid":6}', "application/json"),
        (b"{" * 5000, "application/json"),
        (b"{" * 20 + b'{"status":"success","tracked":3,"invalid":0}', "text/html"),
    ],
)
def test_a_success_that_is_not_matomo_s_is_uncertain(body, kind):
    with pytest.raises(UncertainError):
        judged(body=body, Content_Type=kind)


def test_an_answer_as_if_nothing_had_been_asked_is_retried():
    with pytest.raises(RetryableError, match="dropped the request"):
        judged(body=b"This resource is part of Matomo. Keep full control of your data")


@pytest.mark.parametrize("status", [200, 500])
def test_an_undone_request_blames_nobody_yet(status):
    with pytest.raises(DeliveryError, match=f"answered {status}, and undid the whole request") as caught:
        judged(status, answer(2, 0, "error"))
    assert type(caught.value) is DeliveryError


def test_a_failure_that_counts_has_recorded():
    """As when PHP fails after the answer was written."""
    assert judged(500, answer(2, 1)) == Answer(counted=True, tracked=2, invalid=1)


def test_a_failure_that_does_not_count_is_uncertain():
    with pytest.raises(UncertainError):
        judged(500, b'{"status":"success"}')


@pytest.mark.parametrize("status", [301, 400, 403, 405, 408, 413, 425, 429, 501, 502, 503])
def test_what_the_status_alone_decides(status):
    with pytest.raises(DeliveryError, match=f"answered {status}"):
        by_status(status, {})


@pytest.mark.parametrize("status", [200, 204, 500])
def test_what_the_status_alone_does_not_decide(status):
    assert by_status(status, {}) is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, RetryableError), (302, RetryableError), (308, RetryableError), (304, RetryableError),
        (413, PermanentError), (414, PermanentError), (431, PermanentError),
        (400, DeliveryError), (401, DeliveryError), (403, DeliveryError), (404, DeliveryError), (405, DeliveryError),
        (408, RetryableError), (425, RetryableError), (429, RetryableError),
        (500, UncertainError),
        (501, RetryableError), (503, RetryableError), (521, RetryableError), (599, RetryableError),
        (502, UncertainError), (504, UncertainError), (520, UncertainError), (524, UncertainError),
    ],
)  # fmt: skip
@pytest.mark.parametrize("body", [b"", GIF, b"<html>"])
def test_every_other_status(status, kind, body):
    with pytest.raises(DeliveryError, match=f"answered {status}") as caught:
        judged(status, body)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120.0), (" 7 ", 7.0), ("Sat, 21 Nov 2020 11:00:00 GMT", 0.0), ("soon", None), ("", None)],
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_was_asked_for(status, header, seconds):
    with pytest.raises(RetryableError) as caught:
        judged(status, Retry_After=header)
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://stats.example/matomo.php?token_auth=secret", "answered 301, a redirect to https://stats.example: "),
        ("https://ann:secret@stats.example/", "answered 301, a redirect: "),
        ("/matomo.php?secret", "answered 301, a redirect: "),
        ("", "answered 301, a redirect: "),
    ],
)
def test_a_redirect_says_where_to_but_no_more(location, shown):
    with pytest.raises(RetryableError) as caught:
        judged(301, Location=location)
    assert str(caught.value) == f"{shown}the option URL must be the address it leads to"
