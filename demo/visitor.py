"""Visitors of the shop, over HTTP like any others: with consent, without it, with GPC, signed in, and a robot."""

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

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
ORDER = re.compile(r'data-order="([0-9a-f-]{36})"')
USER = re.compile(r'data-user="(\d+)"')

NECESSARY = frozenset({"necessary"})
ANALYTICS = NECESSARY | {"analytics"}
EVERYTHING = ANALYTICS | {"marketing"}


class Person(NamedTuple):
    """Somebody who was in the shop."""

    words: str
    products: frozenset[str]
    """At which nobody else has looked."""
    purposes: frozenset[str]
    """For which plugins may know of that."""


class Visit(NamedTuple):
    """What all of them have done, as far as receivers must or must not know of it."""

    refused: str
    """The key of the order that was rolled back."""
    paid: str
    people: tuple[Person, ...]
    users: tuple[str, str]
    """The ids of the users who signed in at the same computer, one after the other."""


class Browser:
    """As much of a browser as the shop needs: cookies, redirects, and the token against forged requests."""

    def __init__(self, address: str, user_agent: str = FIREFOX, **headers: str) -> None:
        self._address = address
        self._cookies = CookieJar()
        # No proxy: the shop is on this machine, whatever the environment says.
        self._opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(self._cookies))
        more = [(name.replace("_", "-"), value) for name, value in headers.items()]
        self._opener.addheaders = [("User-Agent", user_agent), ("Accept-Language", "en"), *more]

    @property
    def cookies(self) -> set[str]:
        """The names of those that it was given."""
        return {cookie.name for cookie in self._cookies}

    def get(self, path: str, **query: str) -> str:
        return self._open(f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, *, status: int = 200, **fields: object) -> str:
        token = next((cookie.value for cookie in self._cookies if cookie.name == "csrftoken"), "")
        return self._open(path, urlencode({**fields, "csrfmiddlewaretoken": token}, doseq=True).encode(), status)

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


def visit(address: str, user: tuple[str, str], say: Callable[[str], None]) -> Visit:
    """Go through the shop. ``user`` is the name and password of one who has signed up before.

    Raises ``DemoError`` if it does not answer as it should.
    """
    say("A robot looks at the vase")
    Browser(address, GOOGLEBOT).get("/products/vase/")
    say("Somebody looks at the tray, and does not answer the question for consent")
    undecided = Browser(address)
    undecided.get("/")
    undecided.get("/products/tray/")
    if marks := undecided.cookies - {"csrftoken"}:
        raise DemoError(f"A visitor who has not chosen was given cookies: {', '.join(sorted(marks))}.")
    say("Somebody agrees to everything, and looks at the bowl; but the browser sends Sec-GPC: 1")
    private = Browser(address, Sec_GPC="1")
    _agree(private)
    private.get("/products/bowl/")
    ada = Browser(address)
    refused, paid, first = _buy(ada, say)
    second = _sign_in_as_another(ada, user, say)
    people = (
        Person("Ada, who agreed to everything", frozenset({"teapot", "mug", "honey"}), EVERYTHING),
        Person("Ben, signed in at the same computer", frozenset({"sencha"}), EVERYTHING),
        Person("Ben, while he had turned tracking off", frozenset({"towel"}), frozenset()),
        Person("one whose browser sends Sec-GPC", frozenset({"bowl"}), ANALYTICS),
        Person("one who has not chosen yet", frozenset({"tray"}), NECESSARY),
        Person("a robot", frozenset({"vase"}), frozenset()),
    )
    return Visit(refused, paid, people, (first, second))


def _agree(browser: Browser) -> None:
    if "Agree to all" not in browser.get("/"):
        raise DemoError("The shop did not ask for consent. See the log of web.")
    if "Agree to all" in browser.post("/consent/", purpose=["analytics", "marketing"], next="/"):
        raise DemoError("The shop asked for consent again. See the log of web.")


def _buy(browser: Browser, say: Callable[[str], None]) -> tuple[str, str, str]:
    """Look around, fail to pay, sign up, pay. Returns the orders' keys, and the new user's id."""
    say("Ada agrees to everything, and looks around")
    _agree(browser)
    browser.get("/about/")
    browser.get("/search/", q="tea", utm_source="newsletter", utm_campaign="autumn")
    for slug in ("teapot", "mug", "honey", "teapot"):
        browser.get(f"/products/{slug}/")
    say("Ada fills a basket")
    browser.post("/basket/add/teapot/", quantity=1)
    browser.post("/basket/add/honey/", quantity=1)
    browser.post("/basket/remove/honey/")
    browser.post("/basket/add/mug/", quantity=4)
    customer = {"name": "Ada", "email": "ada@example.com"}
    say("Ada pays with a voucher that fails, so that the order is rolled back")
    browser.get("/checkout/")
    refused = browser.post("/checkout/", **customer, voucher="BROKEN", status=402)
    say("Ada signs up")
    password = secrets.token_urlsafe(12)
    browser.get("/sign-up/")
    browser.post("/sign-up/", username="ada", email=customer["email"], password1=password, password2=password)
    say("Ada orders")
    browser.get("/checkout/")
    paid = browser.post("/checkout/", **customer, voucher="")
    user = _found(USER, browser.get("/account/"), "the account page with its user")
    say("Ada signs out")
    browser.post("/sign-out/")
    return _order(refused), _order(paid), user


def _sign_in_as_another(browser: Browser, user: tuple[str, str], say: Callable[[str], None]) -> str:
    """Returns the id of the user."""
    name, password = user
    say("Ben signs in at Ada's computer, and looks at the sencha")
    browser.get("/sign-in/")
    browser.post("/sign-in/", username=name, password=password)
    browser.get("/products/sencha/")
    say("Ben turns tracking off, looks at the towel, and turns it on again")
    account = browser.get("/account/")
    browser.post("/account/tracking/")
    browser.get("/products/towel/")
    browser.post("/account/tracking/", tracked=1)
    return _found(USER, account, "the account page with its user")


def _order(page: str) -> str:
    return _found(ORDER, page, "an order with its reference")


def _found(pattern: re.Pattern[str], page: str, what: str) -> str:
    found = pattern.search(page)
    if found is None:
        raise DemoError(f"The shop did not answer {what}. See the log of web.")
    return found[1]
