"""Matomo's rules for a single hit: what is wrong with it, what it is, what is left of it."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from .hits import moment
from .visitors import HEX16

if TYPE_CHECKING:
    from collections.abc import Collection

    from .hits import Hit

#: Parameters that need a token.
AUTHORISED = ("cip", "country", "region", "city", "lat", "long")
#: The age in seconds from which an event's time needs a token, and the age from which it is not believed.
OLD, TOO_OLD = 86_400, 20 * 365 * 86_400
#: Characters that are kept of a title, an address or an event's text.
MAX_TEXT = 1024
#: The same for other parameters.
LIMITS = {"uid": 200, "search_cat": 200, "ec_id": 100, "pv_id": 6}
MAX_DIMENSION = 250
#: Words by which Matomo's device detector knows a robot.
ROBOT = re.compile(
    r"(?i)(bot|crawl|crawler|spider|slurp|fetcher|monitor|script|proxy|project|checker|archiver|transcoder)([^a-z]|$)"
    r"|user-agent"
)
#: Robots that answer a person's question, and may be recorded as such.
ASSISTANT = re.compile(
    r"ChatGPT-User|MistralAI-User|Gemini-Deep-Research|Claude-User|Perplexity-User|Google-NotebookLM"
    r"|Google-GeminiNotebook|DuckAssistBot"
)
#: Query parameters that are taken out of addresses.
EXCLUDED = frozenset({
    "gclid", "fbclid", "msclkid", "twclid", "wbraid", "gbraid", "yclid", "fb_xd_fragment", "fb_comment_id",
    "phpsessid", "jsessionid", "sessionid", "aspsessionid", "doing_wp_cron", "sid", "pk_vid",
})  # fmt: skip


class Refused(Exception):
    """The hit is invalid: 400, or counted as invalid among many."""


class Excluded(Exception):
    """The hit is not recorded, and nobody is told."""


class Unclaimed(Exception):
    """With ``ca=1``, and nothing that it could be. Among many it takes all of them back."""


def integer(sent: dict[str, str], name: str) -> int | None:
    """A number of the right kind, or None: Matomo replaces what is none by its default."""
    value = sent.get(name, "").strip()
    return int(value) if re.fullmatch(r"-?\d{1,18}", value) else None


def number(sent: dict[str, str], name: str) -> float | None:
    try:
        value = float(sent.get(name, ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def check(hit: Hit, *, authorised: bool) -> None:
    """Set the time of a hit, and its kind if it is a robot's. Raises ``Refused`` or ``Excluded``."""
    sent = hit.sent
    if sent.get("rec") != "1":
        raise Excluded("rec=1 is missing")
    for name in AUTHORISED:
        if sent.get(name) and not authorised:
            raise Refused(f"{name} needs a token that may write to this site")
    _set_time(hit, authorised=authorised)
    if "cid" in sent and not HEX16.fullmatch(sent["cid"]):
        raise Refused("cid must have 16 hexadecimal digits")
    if sent.get("_id") and not HEX16.match(sent["_id"]):
        hit.notes.append("_id ignored: it must have 16 hexadecimal digits")
    for name in sent:
        if name.startswith("pf_") and (integer(sent, name) or 0) < 0:
            raise Refused(f"{name} is negative")
    mode = sent.get("recMode")
    robot = bool(ROBOT.search(hit.user_agent) or ASSISTANT.search(hit.user_agent))
    if mode == "1" or (mode == "2" and robot):
        if not ASSISTANT.search(hit.user_agent):
            raise Excluded("recMode: its user agent is no assistant's")
        hit.kind, hit.name = "bot", sent.get("url", "")[:MAX_TEXT]
    elif robot and sent.get("bots") != "1":
        raise Excluded("its user agent is a robot's")


def _set_time(hit: Hit, *, authorised: bool) -> None:
    now = hit.received.timestamp()
    given = _seconds(hit.sent.get("cdt", ""))
    if hit.sent.get("cdt") and given is None:
        hit.notes.append("cdt ignored: it is no time")
    age = now - (now if given is None else given) + abs(integer(hit.sent, "cdo") or 0)
    if age < 0 or age > TOO_OLD:
        hit.notes.append("cdt ignored: it lies in the future" if age < 0 else "cdt ignored: it is too long ago")
    elif age >= OLD and not authorised:
        raise Refused("cdt is 24 hours old or older: that needs a token")
    else:
        hit.time = moment(now - age)


def _seconds(text: str) -> float | None:
    if text.isdigit():
        return float(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def read_action(hit: Hit, goals: Collection[int], *, referrer: str) -> None:
    """Set kind, name and properties: one hit is one thing. Raises ``Refused`` or ``Unclaimed``."""
    sent = hit.sent
    given = {name: sent[name] for name in ("e_c", "e_a") if name in sent}
    if given and not all(sent.get(name, "").strip() for name in ("e_c", "e_a")):
        raise Refused("e_c and e_a must not be blank")
    if sent.get("ping") == "1":
        hit.kind = "ping"
    elif "idgoal" in sent and (goal := integer(sent, "idgoal")) is not None:
        if goal and goal not in goals:
            raise Refused(f"there is no goal {goal}")
        _read_conversion(hit, goal)
    else:
        _read_visible_action(hit)
    if sent.get("ca") == "1" and hit.kind in ("ping", "goal", "order", "cart", "page view"):
        raise Unclaimed("ca=1, and it is no event, content, search, outlink or download")
    _read_the_rest(hit, referrer)


def _read_visible_action(hit: Hit) -> None:
    """The highest wins: a download is no outlink, an outlink no event, and so on."""
    sent = hit.sent
    for kind, name in (("download", "download"), ("outlink", "link"), ("event", "e_a"), ("content", "c_n")):
        if sent.get(name):
            hit.kind, hit.name = kind, _cut(hit, name)
            break
    else:
        searched = "search" in sent
        hit.kind, hit.name = ("site search", sent["search"]) if searched else ("page view", _cut(hit, "action_name"))
    keep = {
        "event": ("e_c", "e_n", "e_v"),
        "content": ("c_p", "c_t", "c_i"),
        "site search": ("search_cat", "search_count"),
        "page view": ("_pks", "_pkn", "_pkp", "_pkc"),
    }
    for name in keep.get(hit.kind, ()):
        if name == "e_v" and number(sent, name) is None:
            continue
        if name in sent:
            hit.properties[name] = _cut(hit, name)


def _read_conversion(hit: Hit, goal: int) -> None:
    sent = hit.sent
    if goal:
        hit.kind, hit.name = "goal", str(goal)
    elif sent.get("ec_id"):
        hit.kind, hit.name = "order", _cut(hit, "ec_id")
    else:
        hit.kind, hit.name = "cart", "cart"
    for name in ("revenue", "ec_st", "ec_tx", "ec_sh", "ec_dt"):
        value = number(sent, name)
        if value is not None:
            hit.properties[name] = round(value, 2)
    if hit.kind == "goal":
        return
    if "revenue" not in hit.properties:
        hit.notes.append("revenue is missing")
    if sent.get("ec_items"):
        items = _items(sent["ec_items"])
        if items is None:
            hit.notes.append("ec_items left out: it is no list of lists")
        else:
            hit.properties["items"] = items


def _items(text: str) -> list[dict[str, Any]] | None:
    try:
        rows = json.loads(text)
        found = []
        for row in rows:
            sku, name, category, price, quantity = [*row, *["", "", "", 0, 1][len(row) :]][:5]
            if sku:
                item = {"sku": str(sku), "name": str(name), "category": category}
                found.append({**item, "price": float(price or 0), "quantity": int(quantity)})
    except (ValueError, TypeError):
        return None
    return found


def _read_the_rest(hit: Hit, referrer: str) -> None:
    """Addresses, dimensions, custom variables."""
    sent = hit.sent
    address = sent.get("url") or ("" if sent.get("urlref") else referrer)
    if address:
        cleaned = _clean(address)
        if cleaned:
            hit.properties["url"] = cleaned
        else:
            hit.notes.append("url left out: it is no absolute http address")
    for name, value in sent.items():
        if re.fullmatch(r"dimension[1-9]\d*", name):
            if len(value) > MAX_DIMENSION:
                hit.notes.append(f"{name} cut to {MAX_DIMENSION} characters")
            hit.properties[name] = value.strip()[:MAX_DIMENSION]
    for name in ("urlref", "pv_id"):
        if sent.get(name):
            hit.properties[name] = _cut(hit, name)
    for name in ("cvar", "_cvar"):
        if sent.get(name):
            try:
                hit.properties[name] = json.loads(sent[name])
            except ValueError:
                hit.notes.append(f"{name} left out: it is no JSON")
    if len(sent.get("uid", "")) > LIMITS["uid"]:
        hit.notes.append(f"uid cut to {LIMITS['uid']} characters")


def _clean(address: str) -> str:
    """An address as it is kept: the host in lower case, no fragment, no session ids. Empty if it is none."""
    try:
        parts = urlsplit(address.strip())
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return ""
    query = parts.query
    if any(name.lower() in EXCLUDED for name, _ in parse_qsl(query, keep_blank_values=True)):
        kept = [pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0].lower() not in EXCLUDED]
        query = urlencode(kept)
    return urlunsplit((parts.scheme, parts.netloc.lower(), parts.path, query, ""))[:MAX_TEXT]


def _cut(hit: Hit, name: str) -> str:
    limit = LIMITS.get(name, MAX_TEXT)
    value = hit.sent.get(name, "")
    if len(value) > limit:
        hit.notes.append(f"{name} cut to {limit} characters")
    return value[:limit]
