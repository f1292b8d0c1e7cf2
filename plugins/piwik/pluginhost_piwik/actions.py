"""What an event means in Matomo, before it is written for the server or for the browser. Pure.

Sources: Matomo's Tracking HTTP API reference and JavaScript tracker reference (2026),
and the tracker's source (5.2) where these are silent.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from pluginhost import PermanentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pluginhost import Event

#: Characters that Matomo keeps of titles, URLs and the parts of an event.
MAX_TEXT = 1024
MAX_SEARCH_CATEGORY = 200
MAX_DIMENSION = 250
MAX_ORDER_ID = 100
MAX_CATEGORIES = 5
#: Larger numbers don't fit the database's columns, where one of them would undo a whole request.
MAX_NUMBER = 1e15

Number = Annotated[float, msgspec.Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A product in an order or cart."""

    sku: Text
    name: str = ""
    category: str | Annotated[list[str], msgspec.Meta(max_length=MAX_CATEGORIES)] = ""
    price: Number = 0.0
    quantity: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 1


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order. Matomo counts each ``id`` once."""

    id: str | int
    revenue: Number | None = None
    """The grand total; the event's value unless given."""
    items: list[Item] = []
    subtotal: Number | None = None
    tax: Number | None = None
    shipping: Number | None = None
    discount: Number | None = None


class Cart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole cart, as it is now."""

    items: list[Item] = []
    revenue: Number | None = None
    """What all of it costs; the event's value unless given."""


class Search(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A search in the site."""

    keyword: Text
    category: str | None = None
    count: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    """How many results were found."""


class Tuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a caller may tune for one event: ``plugins={"piwik": {"category": "Shop"}}``."""

    category: Text | None = None
    """Of the event; the option CATEGORY unless given."""
    action: Text | None = None
    """Of the event; its name unless given."""
    label: str | None = None
    """Matomo's "name" of the event."""
    goal: Annotated[int, msgspec.Meta(gt=0)] | None = None
    """The id of a goal that is converted too; what GOALS says unless given."""
    revenue: Number | None = None
    """Of the goal, the order or the cart."""
    order: Order | None = None
    cart: Cart | None = None
    search: Text | Search | None = None
    outlink: Text | None = None
    """The URL of a link that leads elsewhere."""
    download: Text | None = None
    """The URL of a file."""
    dimensions: dict[str, str | int | float | bool | None] = {}
    """Custom dimensions, by id or by a name of the option DIMENSIONS."""
    url: Text | None = None
    """The page's URL, for events without a request."""


EVENT_OPTIONS = frozenset(Tuning.__struct_fields__)


class PageView(msgspec.Struct, frozen=True):
    title: str


class CustomEvent(msgspec.Struct, frozen=True):
    category: str
    action: str
    name: str | None
    value: float | None


class Link(msgspec.Struct, frozen=True):
    url: str
    kind: Literal["link", "download"]


class Goal(msgspec.Struct, frozen=True):
    id: int
    revenue: float | None


Action = PageView | CustomEvent | Link | Search | Order | Cart | Goal


class Plan(msgspec.Struct, frozen=True):
    """The actions of one event, in order, each of which is one hit."""

    actions: tuple[Action, ...]
    dimensions: dict[int, str]
    """Belong to the first action."""
    url: str | None
    """Where it happened, if the caller says so."""


class Vocabulary(msgspec.Struct, frozen=True):
    """What the options say of the meaning of events."""

    alias: str = "piwik"
    category: str = "Events"
    goals: dict[str, int] = {}
    dimensions: dict[str, int] = {}


def read(event: Event, words: Vocabulary) -> Plan:
    """What the event means. Raises ``PermanentError``, which names the path of what is wrong."""
    tuning = _tuning(event, words.alias)
    value = _number("value", event.value)
    main = _main(event, tuning, words, value)
    goal = tuning.goal or (words.goals.get(event.name) if event.type == "track" else None)
    actions: list[Action] = [main] if goal is None else [main, Goal(goal, tuning.revenue)]
    if event.type == "page" and isinstance(main, Order | Cart):  # these record no page view
        actions.insert(0, PageView(text(event.name)))
    if tuning.revenue is not None and goal is None and not isinstance(main, Order | Cart):
        raise _wrong(words.alias, "revenue", "there is no goal, order or cart that it could be of")
    url = None if tuning.url is None else _url(words.alias, "url", tuning.url, ("http", "https"))
    return Plan(tuple(actions), _dimensions(event, tuning, words), url)


_UNTUNED = Tuning()


def _tuning(event: Event, alias: str) -> Tuning:
    if not event.plugins or not (given := event.tuning(alias)):
        return _UNTUNED
    try:
        return msgspec.convert(given, Tuning)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise PermanentError(f"plugins.{alias}{path.rstrip('`')}: {problem}") from None


def _wrong(alias: str, path: str, problem: str) -> PermanentError:
    return PermanentError(f"plugins.{alias}.{path}: {problem}")


def _main(event: Event, tuning: Tuning, words: Vocabulary, value: float | None) -> Action:
    """The one thing that the event is, beside a goal."""
    special = None if tuning is _UNTUNED else _special(event, tuning, words, value)
    if special is not None:
        return special
    if event.type == "page":
        return PageView(text(event.name))
    return CustomEvent(
        category=_filled(words.alias, "category", tuning.category or words.category),
        action=_filled(words.alias, "action", tuning.action or event.name),
        name=(text(tuning.label) or None) if tuning.label else None,
        value=value,
    )


def _special(event: Event, tuning: Tuning, words: Vocabulary, value: float | None) -> Action | None:
    """What the caller says that it is, or None if it is what its type says."""
    kinds = [name for name in ("order", "cart", "search", "outlink", "download") if getattr(tuning, name) is not None]
    if len(kinds) > 1:
        raise _wrong(words.alias, kinds[1], f"an event with {kinds[0]} cannot have it too")
    parts = [name for name in ("category", "action", "label") if getattr(tuning, name) is not None]
    if parts and (kinds or event.type == "page"):
        raise _wrong(words.alias, parts[0], f"is for events, not for {kinds[0] if kinds else 'page views'}")
    if tuning.order is not None:
        return _order(tuning, words.alias, value)
    if tuning.cart is not None:
        revenue = _revenue(words.alias, "cart", tuning.cart.revenue, tuning.revenue, value)
        return Cart(_items(words.alias, "cart", tuning.cart.items), revenue)
    if tuning.search is not None:
        return _search(tuning.search, words.alias)
    if tuning.outlink is not None:
        return Link(_url(words.alias, "outlink", tuning.outlink, ("http", "https", "ftp")), "link")
    if tuning.download is not None:
        return Link(_url(words.alias, "download", tuning.download, ("http", "https", "ftp")), "download")
    return None


def _order(tuning: Tuning, alias: str, value: float | None) -> Order:
    order = tuning.order
    assert order is not None
    order_id = str(order.id).strip()
    if not order_id:
        raise _wrong(alias, "order.id", "is empty")
    if len(order_id) > MAX_ORDER_ID or text(order_id) != order_id:
        # Cut, two orders might become one.
        raise _wrong(alias, "order.id", f"must be one line of at most {MAX_ORDER_ID} characters")
    revenue = _revenue(alias, "order", order.revenue, tuning.revenue, value)
    return msgspec.structs.replace(order, id=order_id, revenue=revenue, items=_items(alias, "order", order.items))


def _revenue(alias: str, kind: str, *given: float | None) -> float:
    for revenue in given:
        if revenue is not None:
            return revenue
    raise _wrong(alias, f"{kind}.revenue", "is missing; it may also be the event's value")


def _items(alias: str, kind: str, items: list[Item]) -> list[Item]:
    for index, item in enumerate(items):
        if not math.isfinite(item.price):
            raise _wrong(alias, f"{kind}.items[{index}].price", "is not a number of JSON")
    return [
        msgspec.structs.replace(
            item,
            sku=_filled(alias, f"{kind}.items[{index}].sku", item.sku),
            name=text(item.name),
            category=text(item.category) if isinstance(item.category, str) else [text(name) for name in item.category],
        )
        for index, item in enumerate(items)
    ]


def _search(search: str | Search, alias: str) -> Search:
    if isinstance(search, str):
        search = Search(search)
    category = None if search.category is None else text(search.category, MAX_SEARCH_CATEGORY)
    return Search(_filled(alias, "search", search.keyword), category or None, search.count)


def _dimensions(event: Event, tuning: Tuning, words: Vocabulary) -> dict[int, str]:
    """Id -> value: from the properties that DIMENSIONS names, then from what the caller chose."""
    if not words.dimensions and not tuning.dimensions:
        return {}
    chosen: dict[int, Any] = {words.dimensions[n]: v for n, v in event.properties.items() if n in words.dimensions}
    for name, value in tuning.dimensions.items():
        if name in words.dimensions:
            chosen[words.dimensions[name]] = value
        elif re.fullmatch(r"[1-9][0-9]{0,8}", name):
            chosen[int(name)] = value
        else:
            raise _wrong(words.alias, f"dimensions.{name:.80}", "is neither an id nor a name of the option DIMENSIONS")
    return {id_: text(_plain(value), MAX_DIMENSION) for id_, value in chosen.items() if value is not None}


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float) and abs(value) <= MAX_NUMBER:
        return decimal(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _filled(alias: str, path: str, value: str) -> str:
    """Text that Matomo must not find empty."""
    cleaned = text(value)
    if not cleaned:
        raise _wrong(alias, path, "is blank")
    return cleaned


def _number(path: str, value: float | None) -> float | None:
    if value is None:
        return None
    if not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise PermanentError(f"{path}: a number beyond ±{MAX_NUMBER:.0e}, which Matomo can't store")
    return value


def _url(alias: str, path: str, value: str, schemes: tuple[str, ...]) -> str:
    cleaned = url(value, schemes)
    if cleaned is None:
        raise _wrong(alias, path, f"must be an absolute URL ({', '.join(schemes)})")
    return cleaned


#: Answers that a process remembers of what many events have in common, such as their pages and browsers.
REMEMBERED = 1024

_BREAKS = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]+")
_HALF_A_SIGN = re.compile(r"%[0-9A-Fa-f]?$")


def text(value: str, limit: int = MAX_TEXT) -> str:
    """One line of at most ``limit`` characters: Matomo removes line breaks, and cuts what is longer."""
    if not value.isprintable():
        value = value.encode("utf-8", "replace").decode()  # half of a surrogate pair is no UTF-8
        value = _BREAKS.sub(" ", value)
    value = value.strip()
    return value if len(value) <= limit else value[:limit].rstrip()


def url(value: str | None, schemes: tuple[str, ...] = ("http", "https")) -> str | None:
    """An absolute URL as Matomo keeps it, or None if it is none."""
    return _absolute(text(value), schemes) if value else None


@lru_cache(REMEMBERED)
def _absolute(cleaned: str, schemes: tuple[str, ...]) -> str | None:
    try:
        parts = urlsplit(cleaned)
        if parts.scheme not in schemes or not parts.hostname:
            return None
    except ValueError:
        return None
    return _HALF_A_SIGN.sub("", cleaned)  # not in the middle of an encoded sign


def decimal(value: float) -> str:
    """A number with a dot, without exponent, thousands separators or superfluous zeros."""
    if isinstance(value, int):
        return str(int(value))
    if not math.isfinite(value):
        raise PermanentError("a number that is none of JSON")
    shown = format(Decimal(repr(round(value, 10) + 0.0)), "f")  # the sum makes 0 of -0
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def dimension_parameters(dimensions: Mapping[int, str]) -> dict[str, str]:
    """``{3: "pro"}`` as ``{"dimension3": "pro"}``, which server and browser both take."""
    return {f"dimension{id_}": value for id_, value in sorted(dimensions.items())}
