"""Talks to Matomo: one POST for many hits, over a connection that is kept."""

from __future__ import annotations

import io
import re
import threading
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import msgspec
import requests

from pluginhost import DeliveryError, RetryableError, UncertainError, http
from pluginhost_piwik import __version__, answers
from pluginhost_piwik.actions import REMEMBERED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pluginhost_piwik.answers import Answer
    from pluginhost_piwik.payload import Hit

#: Seconds after which an idle connection is not used again: servers close theirs after five and more, and a request
#: that meets the closing is a request of unknown fate.
MAX_IDLE = 4.0
#: Parameters that many hits have in common. What a person is known by is not remembered, nor what may be long.
COMMON = frozenset({"url", "urlref", "ua", "lang", "action_name", "e_c", "e_a", "e_n"})
#: Bytes of an answer that are read. Matomo's are of a few hundred.
MAX_ANSWER = 64 * 1024
#: Matomo takes it for a library, which is no bot. Hits that carry the visitor's own are judged by that.
USER_AGENT = f"pluginhost-piwik/{__version__} python-requests/{requests.__version__}"


def body(hits: Sequence[Hit], token: str) -> bytes:
    """The body of a bulk request: each hit a query string, the token beside them and nowhere else."""
    queries = ["?" + "&".join([f"{name}={_written(name, value)}" for name, value in hit.items()]) for hit in hits]
    content: dict[str, Any] = {"requests": queries}
    if token:
        content["token_auth"] = token
    return msgspec.json.encode(content)


def _written(name: str, value: str) -> str:
    if value.isascii() and value.isalnum():
        return value
    return _common(value) if name in COMMON else _quoted(value)


#: What ``quote`` leaves as it is (RFC 3986, 2.3).
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]*")


def _quoted(value: str) -> str:
    return value if _UNRESERVED.fullmatch(value) else quote(value, safe="", errors="replace")


_common = lru_cache(REMEMBERED)(_quoted)


class Client:
    """Sends hits to one tracker. Threads may share it; each has a connection of its own."""

    def __init__(self, url: str, token: str = "", *, connect: float, read: float) -> None:
        self._url = url
        self._host = urlsplit(url).netloc
        self._token = token
        self._waits = (connect, read)
        self._own = threading.local()
        self._clients: list[http.Client] = []

    def send(self, hits: Sequence[Hit]) -> Answer:
        """POST the hits in one request, which takes ``connect`` and ``read`` seconds together at most.

        Raises ``RetryableError`` if nothing was sent, ``UncertainError`` if it was and
        no answer came, and what ``answers.read`` raises. No error shows a URL, a token
        or a hit.
        """
        status, headers, text = self._exchange(Body(body(hits, self._token)))
        try:
            return answers.read(status, headers, text, len(hits))
        except DeliveryError as error:
            raise self._named(error) from None

    def ask(self) -> None:
        """POST a request without hits, of which Matomo records nothing.

        Raises ``RetryableError`` if it does not answer as it would with hits.
        """
        try:
            self.send([])
        except UncertainError as error:
            raise RetryableError(str(error)) from None
        except RetryableError:
            raise
        except DeliveryError:
            return  # it answers, and what it thinks of hits is another question

    def _exchange(
        self,
        content: Body,
        *,
        url: str = "",
        kind: str = "application/json",
        most: int = MAX_ANSWER,
        judge: Callable[[int, Mapping[str, str]], None] = answers.by_status,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and the beginning of the body, which is not read if ``judge`` raises for the status."""
        client = self._client()
        try:
            with client.call(
                "POST", url or self._url, body=content, headers={"Content-Type": kind}, timeouts=self._waits
            ) as response:
                judge(response.status_code, response.headers)
                text = response.raw.read(most, decode_content=True)
        except DeliveryError as error:
            raise self._named(error) from None
        except Exception as error:  # its frames hold the token, hence "from None"
            cause = f"no whole answer within {sum(self._waits):g} s" if http.is_over() else _cause(error)
            if content.begun:
                raise UncertainError(f"{self._host} did not answer: {cause}") from None
            raise RetryableError(f"{self._host} can't be reached: {cause}") from None
        finally:
            self._own.used = time.monotonic()
        return response.status_code, response.headers, text

    def _named(self, error: DeliveryError) -> DeliveryError:
        error.args = (f"{self._host} {error}",)
        return error

    def close(self) -> None:
        """Close all connections."""
        while self._clients:
            self._clients.pop().close()

    def _client(self) -> http.Client:
        """The thread's own. It keeps no cookie: one of the tracker's would make one visitor of all."""
        client: http.Client | None = getattr(self._own, "client", None)
        if client is None:
            client = self._own.client = http.Client(USER_AGENT)
            self._clients.append(client)
        elif time.monotonic() - self._own.used > MAX_IDLE:
            client.close()  # its connections; the next request opens another one
        return client


class Body(io.BytesIO):
    """A request's body that knows whether it began to travel: until then nothing was sent."""

    begun = False

    def read(self, size: int | None = -1, /) -> bytes:
        self.begun = True
        return super().read(size)


def _cause(error: Exception) -> str:
    """The kind of what went wrong at the bottom of an error. Messages of errors hold addresses."""
    inner: Any = error
    for _ in range(8):
        found = (getattr(inner, "reason", None), inner.__cause__, *inner.args)
        deeper = next((candidate for candidate in found if isinstance(candidate, Exception)), None)
        if deeper is None:
            break
        inner = deeper
    return type(inner).__name__
