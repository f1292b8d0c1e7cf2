"""User agents of people: a pattern that matches one of them is a mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"

#: What the browsers that most people use send, one each.
BROWSERS = {
    "Chrome on Windows": f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Chrome/126.0.0.0 Safari/537.36",
    "Chrome on Android": f"Mozilla/5.0 (Linux; Android 10; K) {_WEBKIT} Chrome/126.0.0.0 Mobile Safari/537.36",
    "Edge": f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0",
    "Opera": f"Mozilla/5.0 (X11; Linux x86_64) {_WEBKIT} Chrome/126.0.0.0 Safari/537.36 OPR/112.0.0.0",
    "Samsung Internet": f"Mozilla/5.0 (Linux; Android 10; K) {_WEBKIT} SamsungBrowser/26.0 Chrome/122.0.0.0 Mobile"
    " Safari/537.36",
    "Firefox": "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
    "Firefox on Android": "Mozilla/5.0 (Android 14; Mobile; rv:127.0) Gecko/127.0 Firefox/127.0",
    "Safari": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5"
    " Safari/605.1.15",
    "Safari on an iPhone": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like"
    " Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
}


def browser_matched(matches: Callable[[str], object]) -> str | None:
    """The name of a browser whose user agent ``matches`` takes, or None."""
    return next((name for name, user_agent in BROWSERS.items() if matches(user_agent)), None)
