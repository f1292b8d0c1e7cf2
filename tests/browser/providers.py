"""The plugins of the providers, pointed at a stand-in; and what a browser has sent there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demo.standin import StandIn

#: True in a page once each provider's script has worked off its queue: then the queue is no array any more.
READY = "Object.keys(window).every((name) => !/^_(kmq|paq)/.test(name) || !Array.isArray(window[name]))"

_HIT = re.compile(r"/kissmetrics/[esa](\?|$)|/matomo/matomo\.php(\?|$)")


def kissmetrics(stand_in: StandIn, **options: Any) -> dict[str, Any]:
    """The options of the plugin."""
    url = stand_in.kissmetrics_url
    return {
        "API_KEY": stand_in.KEY,
        "TRACKING_URL": url,
        "LOADER_URL": f"{url}/i.js",
        "SCRIPT_URL": url,
        "SKIP": ["visited_site"],
        **options,
    }


def piwik(stand_in: StandIn, **options: Any) -> dict[str, Any]:
    """The options of the plugin."""
    return {"URL": f"{stand_in.matomo_url}/", "SITE_ID": 1, "TOKEN_AUTH": stand_in.TOKEN, **options}


def is_hit(url: str, stand_in: StandIn) -> bool:
    """Whether this request of a browser tells a provider something."""
    return url.startswith(stand_in.url) and bool(_HIT.search(url))
