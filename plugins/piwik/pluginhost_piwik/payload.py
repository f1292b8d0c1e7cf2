"""From an event to the parameters of its hits. Pure: no server, no clock, no options but those given.

Source of names, types and limits: Matomo's Tracking HTTP API reference (2026), and
the tracker's source (5.2) where the reference is silent.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import json
import re
import string
from typing import TYPE_CHECKING

import msgspec

from pluginhost import PermanentError
from pluginhost_piwik import actions
from pluginhost_piwik.actions import Cart, CustomEvent, Goal, Link, Order, PageView, Search, Vocabulary, decimal
from pluginhost_piwik.visitors import user_id, visitor_id

if TYPE_CHECKING:
    from pluginhost import Event
    from pluginhost_piwik.actions import Action, Item

#: Matomo believes an older time only with a token (tracking_requests_require_authentication_when_custom_timestamp_
#: newer_than, 86,400 s unless changed). Five minutes less: the hit is still to travel, and clocks differ.
MAX_AGE_WITHOUT_TOKEN = dt.timedelta(seconds=86_400 - 300)
#: An older time it ignores, and counts the hit as of now.
MAX_AGE = dt.timedelta(days=20 * 365)

Hit = dict[str, str]
"""The tracking parameters of one hit."""


class Site(msgspec.Struct, frozen=True):
    """What the options say of the site that is tracked."""

    id: int
    words: Vocabulary = Vocabulary()
    has_token: bool = False
    """What needs ``token_auth`` is sent."""
    sends_user_id: bool = False
    key: bytes = b""
    """For visitor ids that are derived from a person."""


def hits(event: Event, site: Site, now: dt.datetime) -> list[Hit]:
    """The event's hits, in order: what happened, then the goal that it converts.

    ``now`` is an aware datetime. Parameters that are not known are left out; 0 is
    kept. Raises ``PermanentError`` for an event that Matomo would refuse, or count
    as something else or at another time.
    """
    plan = actions.read(event, site.words)
    common = _common(event, site, now, plan.url)
    found = [common | _parameters(action, event) for action in plan.actions]
    if plan.dimensions:
        found[0].update(actions.dimension_parameters(plan.dimensions))
    return found


def _common(event: Event, site: Site, now: dt.datetime, url: str | None) -> Hit:
    """What all hits of the event say: where, when and who."""
    context = event.context
    hit = {"idsite": str(site.id), "rec": "1", "apiv": "1", "cdt": _time(event, site, now)}
    if visitor := visitor_id(event, site.words.alias, site.key):
        hit["_id"] = visitor
    if site.sends_user_id and (user := user_id(event.user_id)):
        hit["uid"] = user
    if page := url or actions.url(context.url):
        hit["url"] = page
    if referrer := actions.url(context.referrer):
        hit["urlref"] = referrer
    if context.user_agent and (browser := actions.text(context.user_agent)):
        hit["ua"] = browser
    if context.language and (language := actions.text(context.language)):
        hit["lang"] = language
    # Without a token Matomo would refuse the whole hit because of it.
    if site.has_token and (address := _address(context.ip)):
        hit["cip"] = address
    return hit


def _time(event: Event, site: Site, now: dt.datetime) -> str:
    """When it happened, in Unix seconds. Matomo counts what is in the future as of its own now."""
    age = now - event.timestamp
    if age > MAX_AGE:
        raise PermanentError("timestamp: more than 20 years ago, which Matomo would count as of now")
    if age >= MAX_AGE_WITHOUT_TOKEN and not site.has_token:
        raise PermanentError(
            f"timestamp: {age.total_seconds() / 3600:.0f} hours ago, and Matomo takes events that are a day old only"
            " with a token: set TOKEN_AUTH, and send it again as docs/howto/deploy-the-worker.md shows"
        )
    return str(int(min(event.timestamp, now).timestamp()))


#: An IPv4 address as the module ipaddress writes it, which takes ten times as long to say that it is one.
_PLAIN_ADDRESS = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:\.(?!\Z)|\Z)){4}")


def _address(ip: str | None) -> str | None:
    if not ip or _PLAIN_ADDRESS.fullmatch(ip):
        return ip
    try:
        return str(ipaddress.ip_address(ip))
    except ValueError:
        return None


def _parameters(action: Action, event: Event) -> Hit:
    """What one action adds. ``ca=1`` belongs to events alone: elsewhere Matomo undoes the whole request for it."""
    match action:
        case PageView(title):
            return {"action_name": title, "pv_id": page_view_id(event.message_id)}
        case CustomEvent(category, action_, name, value):
            return _known(e_c=category, e_a=action_, e_n=name, e_v=_shown(value), ca="1")
        case Link(url, kind):
            return {kind: url, "url": url}
        case Search(keyword, category, count):
            return _known(search=keyword, search_cat=category, search_count=_shown(count))
        case Goal(id_, revenue):
            return _known(idgoal=str(id_), revenue=_shown(revenue))
        case Cart(items, revenue):
            return _known(idgoal="0", revenue=_shown(revenue), ec_items=_items(items))
        case Order():
            return _known(
                idgoal="0",
                ec_id=str(action.id),
                revenue=_shown(action.revenue),
                ec_st=_shown(action.subtotal),
                ec_tx=_shown(action.tax),
                ec_sh=_shown(action.shipping),
                ec_dt=_shown(action.discount),
                ec_items=_items(action.items),
            )


def _known(**parameters: str | None) -> Hit:
    return {name: value for name, value in parameters.items() if value is not None}


def _shown(number: float | None) -> str | None:
    return None if number is None else decimal(number)


def _items(items: list[Item]) -> str | None:
    """``[[sku, name, category or categories, price, quantity], …]``."""
    if not items:
        return None
    rows = [[item.sku, item.name, item.category, item.price, item.quantity] for item in items]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


_SIGNS = string.digits + string.ascii_letters


def page_view_id(message_id: str) -> str:
    """Six letters and digits, the same each time that this event is sent."""
    number = int.from_bytes(hashlib.sha256(message_id.encode("utf-8", "replace")).digest()[:8])
    signs = []
    for _ in range(6):
        number, index = divmod(number, len(_SIGNS))
        signs.append(_SIGNS[index])
    return "".join(signs)


def counted_once(hit: Hit) -> bool:
    """Whether Matomo recognises a repetition of this hit: it does for orders, by their id."""
    return "ec_id" in hit
