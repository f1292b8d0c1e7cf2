"""What each receiver itself says has arrived: one entry for each alias that the settings enable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from config.state import mongo_uri
from pluginhost_timeseries.models import EventCount, LedgerEntry
from shop.models import Order
from shop.numbers import totals

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.collection import Collection


class Arrived(NamedTuple):
    """What a receiver holds."""

    events: int
    words: str
    orders: frozenset[str]
    """The keys of the orders that it has heard of."""


def _mongo() -> Arrived:
    database = settings.PLUGINHOST["PLUGINS"]["mongo"]["DATABASE"]
    with MongoClient(mongo_uri(), serverSelectionTimeoutMS=5000) as client:
        events: Collection[dict[str, Any]] = client[database]["events"]
        try:
            n = events.count_documents({})
            about_orders = events.find({"subject.model": Order._meta.label})
            orders = frozenset(document["subject"]["pk"] for document in about_orders)
        except PyMongoError as error:
            return Arrived(0, f"no answer: {error}", frozenset())
    return Arrived(n, f"{n} documents in {database}.events", orders)


def _timeseries() -> Arrived:
    n = LedgerEntry.objects.filter(alias="timeseries").count()
    about_orders = EventCount.objects.filter(subject_type=Order._meta.label)
    orders = frozenset(about_orders.values_list("subject_id", flat=True))
    counters = ", ".join(f"{total} {name}" for name, total in totals().items())
    return Arrived(n, f"{n} events counted; products: {counters}", orders)


RECEIVERS: dict[str, Callable[[], Arrived]] = {"mongo": _mongo, "timeseries": _timeseries}
