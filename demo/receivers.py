"""What each receiver itself says has arrived: one entry for each alias that the settings enable."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.request import ProxyHandler, build_opener

from django.conf import settings
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from config.state import mongo_uri
from pluginhost.builtin.journal.models import Entry
from pluginhost_timeseries.models import EventCount, LedgerEntry
from shop.models import Order
from shop.numbers import numbers_by_product, totals

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.collection import Collection

    from visitor import Visit

VIEWED = "product viewed"


class Arrived(NamedTuple):
    """What a receiver holds."""

    events: int
    words: str
    orders: frozenset[str] = frozenset()
    """The keys of the orders that it has heard of."""
    products: frozenset[str] = frozenset()
    """The products of which it knows that somebody has looked at them."""
    problems: tuple[str, ...] = ()
    """What is wrong with it beside that."""


def _mongo(visit: Visit) -> Arrived:  # noqa: ARG001
    database = settings.PLUGINHOST["PLUGINS"]["mongo"]["DATABASE"]
    with MongoClient(mongo_uri(), serverSelectionTimeoutMS=5000) as client:
        events: Collection[dict[str, Any]] = client[database]["events"]
        try:
            n = events.count_documents({})
            about_orders = events.find({"subject.model": Order._meta.label})
            orders = frozenset(document["subject"]["pk"] for document in about_orders)
            products = frozenset(document["properties"]["slug"] for document in events.find({"name": VIEWED}))
        except PyMongoError as error:
            return Arrived(0, f"no answer: {error}")
    return Arrived(n, f"{n} documents in {database}.events", orders, products)


def _journal(visit: Visit) -> Arrived:
    n = Entry.objects.count()
    orders = frozenset(Entry.objects.filter(subject_model=Order._meta.label).values_list("subject_pk", flat=True))
    products = frozenset(entry.properties["slug"] for entry in Entry.objects.named(VIEWED))
    joined = Entry.objects.of_user(visit.users[0]).filter(joined=True).count()
    words = f"{n} entries, {joined} of them from before Ada's sign-up and hers since"
    return Arrived(n, words, orders, products, () if joined else ("nothing from before the sign-up is Ada's",))


def _timeseries(visit: Visit) -> Arrived:  # noqa: ARG001
    n = LedgerEntry.objects.filter(alias="timeseries").count()
    about_orders = EventCount.objects.filter(subject_type=Order._meta.label)
    orders = frozenset(about_orders.values_list("subject_id", flat=True))
    products = frozenset(row["product"].slug for row in numbers_by_product() if row["views"])
    counters = ", ".join(f"{total} {name}" for name, total in totals().items())
    return Arrived(n, f"{n} events counted; products: {counters}", orders, products)


def _stand_in(provider: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the stand-in says of a provider, and what that has kept of the server's hits."""
    with build_opener(ProxyHandler({})).open(f"{settings.STAND_IN}/received.json", timeout=10) as response:
        found = json.load(response)[provider]
    return found, [hit for hit in found["hits"] if hit["kept"] and hit["origin"] == "server"]


def _kissmetrics(visit: Visit) -> Arrived:
    found, hits = _stand_in("kissmetrics")
    people = [set(ids) for ids in found["people"]]
    problems = []
    if any(ids.issuperset(visit.users) for ids in people):
        problems.append("the two users of one computer became one person")
    if not any(visit.users[0] in ids and len(ids) > 1 for ids in people):
        problems.append("Ada before and after her sign-up are not one person")
    return Arrived(
        len(hits),
        f"{len(hits)} requests kept, of {len(people)} people",
        frozenset(hit["properties"]["order"] for hit in hits if hit["name"] == "order paid"),
        frozenset(hit["properties"]["slug"] for hit in hits if hit["name"] == VIEWED),
        (*problems, *_refusals(found)),
    )


def _piwik(visit: Visit) -> Arrived:  # noqa: ARG001
    found, hits = _stand_in("matomo")
    goals = sorted(int(hit["name"]) for hit in hits if hit["kind"] == "goal")
    wanted = sorted(settings.PLUGINHOST["PLUGINS"]["piwik"]["GOALS"].values())
    n = len(hits) - len(goals)  # an event that is a goal makes two hits
    visitors = len(found["visitors"])
    problems = [] if goals == wanted else [f"the goals {goals} were reached instead of {wanted}"]
    return Arrived(
        n,
        f"{n} hits kept, and {len(goals)} goals, of {visitors} visitors",
        frozenset(hit["name"] for hit in hits if hit["kind"] == "order"),
        frozenset(hit["properties"]["e_n"] for hit in hits if hit["name"] == VIEWED),
        (*problems, *_refusals(found)),
    )


def _refusals(found: dict[str, Any]) -> list[str]:
    return sorted({f"it did not keep a {hit['kind']}: {hit['reason']}" for hit in found["hits"] if not hit["kept"]})


RECEIVERS: dict[str, Callable[[Visit], Arrived]] = {
    "kissmetrics": _kissmetrics,
    "piwik": _piwik,
    "mongo": _mongo,
    "timeseries": _timeseries,
    "journal": _journal,
}
