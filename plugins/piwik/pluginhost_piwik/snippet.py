"""The plugin's HTML: Matomo's script, what is pushed into its queue, and the image without script. Pure.

Names, arguments and order of the calls: Matomo's JavaScript tracker reference (2026),
and the source of matomo.js (5.2) where it is silent.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from pluginhost import PermanentError, to_js
from pluginhost.html import signed_out
from pluginhost_piwik import actions
from pluginhost_piwik.actions import Cart, CustomEvent, Goal, Link, Order, PageView, Search, Vocabulary
from pluginhost_piwik.visitors import user_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pluginhost import Event, Page
    from pluginhost_piwik.actions import Action, Item

logger = logging.getLogger("pluginhost_piwik")

#: The array that matomo.js looks for. What is pushed into it goes to the first alias's tracker.
QUEUE = "_paq"

Push = list[Any]
"""A call of matomo.js: the method's name and its arguments."""
Call = tuple[str | None, Push]
"""The same with a message id, if it is to be pushed once a browser."""

#: Loads matomo.js, and hands our nonce on to it: a policy by nonce does not cover elements made by a script. The
#: element stays known, so that another alias on the page can wait for it.
_LOAD = (
    "(function(u,c){{var d=document,g=d.createElement('script');g.async=true;if(c&&c.nonce)g.nonce=c.nonce;"
    "g.src=u;{ready}window.pluginhostPiwik=g;(d.head||d.documentElement).appendChild(g)}})"
)

#: A further alias gets a tracker of its own, that ``_paq`` knows nothing of: what is pushed there reaches each tracker
#: of addTracker(), so events, goals and names would go to servers that they are not for. matomo.js is needed once,
#: from whichever server gives it.
_OWN_TRACKER = (
    "(function(q,t,s,c){var w=window;"
    "function start(){var m=w.Matomo||w.Piwik,a=w[q];if(!m||!Array.isArray(a))return;var r=m.getTracker(t,'');"
    "function run(){for(var i=0;i<arguments.length;i++){var b=[].slice.call(arguments[i]),f=b.shift();"
    "if(typeof f==='function')f.apply(r,b);else if(r[f])r[f].apply(r,b)}}"
    "w[q]={push:run};run.apply(null,a)}"
    "function load(){" + _LOAD.format(ready="g.onload=start;") + "(s,c)}"
    "var o=w.pluginhostPiwik;"
    "if(w.Matomo||w.Piwik)start();"
    "else if(o){o.addEventListener('load',start);o.addEventListener('error',load)}"
    "else load()})"
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say of the script in the browser. Holds no token."""

    words: Vocabulary
    site_id: int
    tracker_url: str
    script_url: str
    queue: str = QUEUE
    consent: Literal["off", "tracking", "cookies"] = "off"
    do_not_track: bool = False
    disable_cookies: bool = False
    cookie_domain: str | None = None
    link_tracking: bool = True
    heartbeat: int | None = None
    noscript: bool = True
    names_users: bool = False


def render(page: Page, settings: Settings) -> SafeString | None:
    """The HTML for one place of one page, or None if there is nothing to say."""
    waiting = _events(page, settings)
    if page.place == "head":
        return page.script(_head(page, settings, waiting))
    parts = [page.script(_push(page, settings, waiting))] if waiting else []
    if settings.noscript and page.counts_view and not _asks(settings):
        parts.append(_image(settings))
    return mark_safe("\n".join(parts)) if parts else None  # noqa: S308 - every part is safe


def _asks(settings: Settings) -> bool:
    """Whether the visitor has a say. An image would not ask."""
    return settings.consent != "off" or settings.do_not_track or settings.disable_cookies


def _image(settings: Settings) -> SafeString:
    """Without the referrer policy Matomo would not learn the page's URL; rec=1 makes it record the view."""
    return format_html(
        '<noscript><p><img src="{}?idsite={}&amp;rec=1" referrerpolicy="no-referrer-when-downgrade"'
        ' width="1" height="1" alt=""></p></noscript>',
        settings.tracker_url,
        str(settings.site_id),
    )


def _head(page: Page, settings: Settings, waiting: Sequence[Call]) -> str:
    """After a log-out the first hit begins a new visit, which is not the one of the user before."""
    before = [(None, call) for call in _configuration(page, settings)]
    tracks: list[Call] = [(None, ["trackPageView"])] if page.counts_view else []
    tracks += waiting
    after: list[Call] = [(None, ["enableLinkTracking"])] if settings.link_tracking else []
    if settings.heartbeat is not None:
        after.append((None, ["enableHeartBeatTimer", settings.heartbeat]))
    code = _push(page, settings, [*before, *tracks, *after])
    if tracks and settings.names_users:
        begun = _push(page, settings, [*before, *_in_new_visit(page, tracks), *after])
        code = f"if({signed_out(settings.words.alias)}){{{begun}}}else{{{code}}}"
    return code + _loader(settings)


def _in_new_visit(page: Page, tracks: Sequence[Call]) -> list[Call]:
    """The calls, the first hit of which begins a new visit, and no other one.

    matomo.js runs setUserId before everything else, wherever it stands, so
    resetUserId must not follow it.
    """
    first = next(index for index, (_, call) in enumerate(tracks, 1) if call[0].startswith("track"))
    reset: list[Call] = [] if user_id(page.identity) else [(None, ["resetUserId"])]
    opened: Call = (None, ["appendToTrackingUrl", "new_visit=1"])
    closed: Call = (None, ["appendToTrackingUrl", ""])
    return [*reset, opened, *tracks[:first], closed, *tracks[first:]]


def _push(page: Page, settings: Settings, calls: Sequence[Call]) -> str:
    return page.push(settings.queue, calls, settings.words.alias)


def _configuration(page: Page, settings: Settings) -> list[Push]:
    """In the order that Matomo asks for: consent and cookies before anything that could use them."""
    calls: list[Push] = []
    if settings.consent == "tracking":
        calls.append(["requireConsent"])
    elif settings.consent == "cookies":
        calls.append(["requireCookieConsent"])
    if settings.disable_cookies:
        calls.append(["disableCookies"])
    if settings.cookie_domain:
        calls.append(["setCookieDomain", settings.cookie_domain])
    if settings.do_not_track:
        calls.append(["setDoNotTrack", True])
    if settings.names_users and (user := user_id(page.identity)):
        calls.append(["setUserId", user])
    return [*calls, ["setTrackerUrl", settings.tracker_url], ["setSiteId", str(settings.site_id)]]


def _loader(settings: Settings) -> str:
    script = to_js(settings.script_url)
    if settings.queue == QUEUE:
        return f"{_LOAD.format(ready='')}({script},document.currentScript);"
    tracker = to_js(settings.tracker_url)
    return f"{_OWN_TRACKER}({to_js(settings.queue)},{tracker},{script},document.currentScript);"


def _events(page: Page, settings: Settings) -> list[Call]:
    """The calls for the waiting events. One that cannot be said in Matomo's words is logged and left out."""
    found: list[Call] = []
    for event in page.events:
        try:
            found += [(event.message_id, call) for call in calls(event, settings.words)]
        except PermanentError as error:
            logger.error("plugin %s: a waiting event is lost: %s", settings.words.alias, error)
    return found


def calls(event: Event, words: Vocabulary) -> list[Push]:
    """What to push for an event, in order. Raises ``PermanentError``."""
    plan = actions.read(event, words)
    found: list[Push] = []
    for index, action in enumerate(plan.actions):
        dimensions = actions.dimension_parameters(plan.dimensions) if index == 0 else {}
        found += _calls(action, dimensions)
    return found


def _calls(action: Action, dimensions: dict[str, str]) -> list[Push]:
    """Dimensions are the argument ``customData``, so that they hold for this hit alone."""
    data: list[Any] = [dimensions] if dimensions else []
    match action:
        case PageView(title):
            return [["trackPageView", title, *data]]
        case CustomEvent(category, name, label, value):
            return [["trackEvent", category, name, *_known([(label, ""), (value, "")], data)]]
        case Link(url, kind):
            return [["trackLink", url, kind, *data]]
        case Search(keyword, category_, count):
            return [["trackSiteSearch", keyword, *_known([(category_, False), (count, "")], data)]]
        case Goal(id_, revenue):
            return [["trackGoal", id_, *_known([(revenue, "")], data)]]
        case Cart(items, revenue):
            return [*_items(items), *_lasting(dimensions, ["trackEcommerceCartUpdate", revenue])]
        case Order():
            sums = [(sum_, False) for sum_ in (action.subtotal, action.tax, action.shipping, action.discount)]
            order = ["trackEcommerceOrder", action.id, action.revenue, *_known(sums, [])]
            return [*_items(action.items), *_lasting(dimensions, order)]


def _known(arguments: list[tuple[Any, Any]], data: list[Any]) -> list[Any]:
    """Optional arguments, each with what stands for it where it is not known: matomo.js would send null as a word.

    At the end, without ``data`` after them, these are left out.
    """
    while arguments and arguments[-1][0] is None and not data:
        arguments.pop()
    return [blank if value is None else value for value, blank in arguments] + data


def _items(items: list[Item]) -> list[Push]:
    """The cart of matomo.js lives in the page; what its own code left there does not belong to this order."""
    rows: list[Push] = [["addEcommerceItem", i.sku, i.name, i.category, i.price, i.quantity] for i in items]
    return [["clearEcommerceCart"], *rows]


def _lasting(dimensions: dict[str, str], call: Push) -> list[Push]:
    """For calls without ``customData``: dimensions are set before and deleted after."""
    ids = [(int(name.removeprefix("dimension")), value) for name, value in dimensions.items()]
    set_ = [["setCustomDimension", id_, value] for id_, value in ids]
    return [*set_, call, *[["deleteCustomDimension", id_] for id_, _ in ids]]
