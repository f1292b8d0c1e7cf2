"""Talks to KISSmetrics, and says in the host's words what became of a call.

KISSmetrics answers 200 with a tiny image to everything, even a wrong key; other
answers come from what is in between, such as a proxy.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING

import requests
from requests.adapters import HTTPAdapter

from pluginhost import DeliveryError, PermanentError, RetryableError
from pluginhost_kissmetrics import __version__
from pluginhost_kissmetrics.payload import MAX_QUERY, query

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Statuses that speak of this one request; every other one may pass, or concerns them all until it is mended.
REFUSALS = frozenset({400, 405, 411, 413, 414, 415, 422, 431})
FORM = "application/x-www-form-urlencoded; charset=utf-8"
#: Bytes of an answer that are read, so that the connection can be used again. The image has 43.
MAX_ANSWER = 4096

_QUERY = re.compile(r"\?_k=\S*")


def _hide_query(record: logging.LogRecord) -> bool:
    """At its level DEBUG urllib3 logs whole URLs: here these hold the key, a person and all that is sent."""
    if isinstance(record.args, tuple):
        record.args = tuple(_QUERY.sub("?…", each) if isinstance(each, str) else each for each in record.args)
    return True


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """Nowhere. Even without following, requests would read the whole answer to see where it leads."""
        return None


def connect(connections: int = 1) -> requests.Session:
    """A session that keeps so many connections open, and no cookies. Opens none yet."""
    logging.getLogger("urllib3.connectionpool").addFilter(_hide_query)
    session = _Session()
    session.headers["User-Agent"] = f"pluginhost-kissmetrics/{__version__}"
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=connections))
    return session


def send(session: requests.Session, url: str, sent: Mapping[str, str], timeouts: tuple[float, float]) -> None:
    """Send the parameters to ``url`` (tracking URL and path) by GET, or as a form if they are long.

    ``timeouts`` are those for connecting and for reading, in seconds. Raises
    ``RetryableError`` or ``PermanentError``; their texts hold neither URL nor parameters.
    """
    encoded = query(sent)
    error: DeliveryError | None
    try:
        if len(encoded) > MAX_QUERY:
            response = session.post(
                url,
                data=encoded.encode(),
                headers={"Content-Type": FORM},
                timeout=timeouts,
                allow_redirects=False,
                stream=True,
            )
        else:
            response = session.get(f"{url}?{encoded}", timeout=timeouts, allow_redirects=False, stream=True)
    except (requests.RequestException, OSError, ValueError) as caught:
        error = RetryableError(_reason(caught))
    else:
        _drain(response)
        error = _judge(response)
    if error is not None:  # raised out here, without the caught one as its context: that has the URL in its text
        raise error


def _reason(error: Exception) -> str:
    if isinstance(error, requests.ConnectTimeout):
        return "KISSmetrics was not reached in time"
    if isinstance(error, requests.Timeout):
        return "KISSmetrics did not answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "TLS with KISSmetrics failed; is its certificate known here?"
    return f"KISSmetrics was not reached: {type(error).__name__}"


def _drain(response: requests.Response) -> None:
    """Read the answer to its end, or close the connection. What it says was clear before."""
    try:
        rest = response.raw.read(MAX_ANSWER + 1, decode_content=False)
    except Exception:
        response.close()
    else:
        response.close() if len(rest) > MAX_ANSWER else response.raw.release_conn()


def _judge(response: requests.Response) -> DeliveryError | None:
    status = response.status_code
    if 200 <= status < 300:
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            return RetryableError(f"status {status} with a page of HTML, which KISSmetrics never sends; a proxy?")
        return None
    if status in REFUSALS:
        return PermanentError(f"refused with status {status}, which KISSmetrics itself never sends; a proxy?")
    wait = retry_after(response.headers.get("Retry-After"))
    if 300 <= status < 400:
        return RetryableError(
            f"redirected with status {status}, which is not followed; TRACKING_URL must be the address itself",
            retry_after=wait,
        )
    return RetryableError(f"status {status}", retry_after=wait)


def retry_after(header: str | None) -> float | None:
    """Seconds from a Retry-After header (RFC 9110, 10.2.3: seconds or a date); None if it is neither."""
    if header is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", header.strip()):
        return float(header)
    try:
        date = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=dt.UTC)
    return max((date - dt.datetime.now(dt.UTC)).total_seconds(), 0.0)
