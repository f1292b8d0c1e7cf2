"""A visitor of the shop, over HTTP like any other: looks around, fails to pay, signs up, orders."""

from __future__ import annotations

import re
import secrets
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, ProxyHandler, build_opener

from processes import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable

USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
ORDER = re.compile(r'data-order="([0-9a-f-]{36})"')


class Visit(NamedTuple):
    """The orders of a visit, by their keys."""

    refused: str
    paid: str


class Browser:
    """As much of a browser as the shop needs: cookies, redirects, and the token against forged requests."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._cookies = CookieJar()
        # No proxy: the shop is on this machine, whatever the environment says.
        self._opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(self._cookies))
        self._opener.addheaders = [("User-Agent", USER_AGENT), ("Accept-Language", "en")]

    def get(self, path: str, **query: str) -> str:
        return self._open(f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, *, status: int = 200, **fields: object) -> str:
        token = next((cookie.value for cookie in self._cookies if cookie.name == "csrftoken"), "")
        return self._open(path, urlencode({**fields, "csrfmiddlewaretoken": token}).encode(), status)

    def _open(self, path: str, data: bytes | None = None, status: int = 200) -> str:
        try:
            with self._opener.open(self._address + path, data, timeout=30) as response:
                found, page = response.status, response.read().decode()
        except HTTPError as error:
            found, page = error.code, error.read().decode()
        except (URLError, OSError) as error:
            raise DemoError(f"{path} was not answered: {error}. See the log of the web server.") from error
        if found != status:
            raise DemoError(f"{path} was answered with status {found} instead of {status}. See the log of web.")
        return page


def visit(address: str, say: Callable[[str], None]) -> Visit:
    """Go through the shop. Raises ``DemoError`` if it does not answer as it should."""
    browser = Browser(address)
    say("looks around")
    browser.get("/")
    browser.get("/about/")
    browser.get("/search/", q="tea", utm_source="newsletter", utm_campaign="autumn")
    for slug in ("teapot", "mug", "honey", "teapot"):
        browser.get(f"/products/{slug}/")
    say("fills a basket")
    browser.post("/basket/add/teapot/", quantity=1)
    browser.post("/basket/add/honey/", quantity=1)
    browser.post("/basket/remove/honey/")
    browser.post("/basket/add/mug/", quantity=4)
    customer = {"name": "Ada", "email": "ada@example.com"}
    say("pays with a voucher that fails, so that the order is rolled back")
    browser.get("/checkout/")
    refused = browser.post("/checkout/", **customer, voucher="BROKEN", status=402)
    say("signs up")
    password = secrets.token_urlsafe(12)
    browser.get("/sign-up/")
    browser.post("/sign-up/", username="ada", email=customer["email"], password1=password, password2=password)
    say("orders")
    browser.get("/checkout/")
    paid = browser.post("/checkout/", **customer, voucher="")
    return Visit(refused=_order(refused), paid=_order(paid))


def _order(page: str) -> str:
    found = ORDER.search(page)
    if found is None:
        raise DemoError("The shop did not answer an order with its reference. See the log of web.")
    return found[1]
