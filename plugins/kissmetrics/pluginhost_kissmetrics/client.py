"""Talks to KISSmetrics, and says in the host's words what became of a call.

KISSmetrics answers 200 with a tiny image to everything, even a wrong key; other
answers come from what is in between, such as a proxy.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests

from pluginhost import DeliveryError, PermanentError, RetryableError, http
from pluginhost_kissmetrics import __version__
from pluginhost_kissmetrics.payload import MAX_QUERY, query

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Statuses that speak of the length of this one request.
TOO_LONG = frozenset({413, 414, 431})
#: Statuses that speak of this one request, or of all: a wrong address or a proxy answers so, too.
DOUBTFUL = frozenset({400, 405, 411, 415, 422})
FORM = "application/x-www-form-urlencoded; charset=utf-8"
#: Bytes of an answer that are read, so that the connection can be used again. The image has 43.
MAX_ANSWER = 4096
#: Seconds that the rest of an answer may take, so that the connection can be used again.
MAX_REST = 0.25
#: What is told of the software that answered: a name and a version, no more.
_SOFTWARE = re.compile(r"[A-Za-z][A-Za-z0-9 ._/-]{0,39}")

_QUERY = re.compile(r"\?_k=\S*")


def _hide_query(record: logging.LogRecord) -> bool:
    """At its level DEBUG urllib3 logs whole URLs: here these hold the key, a person and all that is sent."""
    if isinstance(record.args, tuple):
        record.args = tuple(_QUERY.sub("?…", each) if isinstance(each, str) else each for each in record.args)
    return True


def connect(connections: int = 1) -> http.Client:
    """What makes the calls, and keeps so many connections open. Opens none yet."""
    for name in ("urllib3.connection", "urllib3.connectionpool"):
        logging.getLogger(name).addFilter(_hide_query)
    return http.Client(f"pluginhost-kissmetrics/{__version__}", connections=connections)


def send(client: http.Client, url: str, sent: Mapping[str, str], timeouts: tuple[float, float]) -> None:
    """Send the parameters to ``url`` (tracking URL and path) by GET, or as a form if they are long.

    ``timeouts`` are those for connecting and for reading, in seconds. Together they
    bound the call. Raises a ``DeliveryError``; its text holds host and port, but
    neither path nor parameters.
    """
    encoded = query(sent)
    error: DeliveryError | None
    try:
        if len(encoded) > MAX_QUERY:
            form = {"Content-Type": FORM}
            response = client.call("POST", url, body=encoded.encode(), headers=form, timeouts=timeouts)
        else:
            response = client.call("GET", f"{url}?{encoded}", timeouts=timeouts)
    except (requests.RequestException, OSError, ValueError) as caught:
        error = RetryableError(_reason(caught, urlsplit(url).netloc))
    else:
        _drain(response)
        error = _judge(response, urlsplit(url).netloc)
    if error is not None:  # raised out here, without the caught one as its context: that has the URL in its text
        raise error


def _reason(error: Exception, host: str) -> str:
    """What went wrong, and what to look at. Errors' own texts hold the whole URL, and the proxy's password."""
    if isinstance(error, requests.exceptions.ProxyError):
        return f"{host} was not reached: the proxy of the environment failed; see HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
    if isinstance(error, requests.ConnectTimeout):
        return f"{host} was not reached in time"
    causes = list(_causes(error))
    for kind, what in (
        ((requests.exceptions.SSLError, ssl.SSLError), f"TLS with {host} failed; is its certificate known here?"),
        (socket.gaierror, f"the name of {host} was not found: is TRACKING_URL right, and does DNS work?"),
        (ConnectionRefusedError, f"{host} refused the connection: nothing listens at that port"),
        ((requests.Timeout, TimeoutError), f"{host} was reached, but did not answer in time"),
        (ConnectionError, f"{host} was reached, but hung up without an answer"),
        (HTTPException, f"{host} was reached, but answered what is not HTTP: is TRACKING_URL right?"),
    ):
        if any(isinstance(cause, kind) for cause in causes):
            return what
    number = next((cause.errno for cause in causes if isinstance(cause, OSError) and cause.errno), None)
    return f"{host} was not reached: {os.strerror(number) if number else type(error).__name__}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it was made from."""
    todo, seen = [error], set[int]()
    while todo:
        each = todo.pop(0)
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            found = (getattr(each, "reason", None), each.__cause__, each.__context__, *each.args)
            todo += [deeper for deeper in found if isinstance(deeper, BaseException)]


def _drain(response: requests.Response) -> None:
    """Read the answer to its end if that is soon, or close the connection. What it says was clear before."""
    http.at_most(MAX_REST)
    try:
        rest = response.raw.read(MAX_ANSWER + 1, decode_content=False)
    except Exception:
        response.close()
    else:
        response.close() if len(rest) > MAX_ANSWER else response.raw.release_conn()


def _judge(response: requests.Response, host: str) -> DeliveryError | None:
    status = response.status_code
    page = response.headers.get("Content-Type", "").lower().startswith("text/html")
    if 200 <= status < 300 and not page:
        return None
    software = _SOFTWARE.fullmatch(response.headers.get("Server", ""))
    who = f"{host} ({software[0]})" if software else host
    wait = response.headers.get("Retry-After")
    if 200 <= status < 300:
        return RetryableError(
            f"{who} answered a page of HTML, which KISSmetrics never does: is TRACKING_URL right, or answers a proxy?"
        )
    if 300 <= status < 400:
        return RetryableError(
            f"{who} redirected with status {status}, which is not followed; TRACKING_URL must be the address itself",
            retry_after=wait,
        )
    told = f"{who} answered with status {status}"
    if status in TOO_LONG:
        return PermanentError(f"{told}: the event is too long for it, or for a proxy before it")
    if status == 429 or status == 503:
        return RetryableError(f"{told}: it is busy", retry_after=wait)
    if status >= 500:
        return RetryableError(f"{told}: it, or a proxy before it, failed there", retry_after=wait)
    told = f"{told}, which KISSmetrics never does: is TRACKING_URL right, or answers a proxy?"
    return DeliveryError(told) if status in DOUBTFUL else RetryableError(told, retry_after=wait)
