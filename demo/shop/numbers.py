"""Reads what ``pluginhost_timeseries`` has counted."""

from __future__ import annotations

from typing import Any

from django.db.models import Sum

from shop.models import Product
from shop.trackabledata import ProductNumbers

COUNTERS = ("views", "added", "sold")


def totals() -> dict[str, int]:
    """Each counter, for all products and days."""
    sums = ProductNumbers.objects.aggregate(**{name: Sum(name, default=0) for name in COUNTERS})
    return {name: sums[name] for name in COUNTERS}


def numbers_by_product() -> list[dict[str, Any]]:
    """A row for each product with its counters, the most viewed first."""
    counted = ProductNumbers.objects.values("parent_object_id").annotate(**{name: Sum(name) for name in COUNTERS})
    by_key = {row["parent_object_id"]: row for row in counted}
    rows = [
        {"product": product, **{name: by_key.get(str(product.pk), {}).get(name, 0) for name in COUNTERS}}
        for product in Product.objects.all()
    ]
    return sorted(rows, key=lambda row: -row["views"])
