"""What is counted for a product, by day. ``pluginhost_timeseries`` imports this module by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from django.db import models

from pluginhost_timeseries import TrackableTimeSeriesData, site
from shop.models import Product

if TYPE_CHECKING:
    from collections.abc import Mapping


class ProductNumbers(TrackableTimeSeriesData):
    events: ClassVar[Mapping[str, str]] = {
        "product viewed": "views",
        "added to basket": "added",
        "product sold": "sold",
    }

    views = models.PositiveIntegerField(default=0)
    added = models.PositiveIntegerField(default=0)
    sold = models.PositiveIntegerField(default=0)

    class Meta(TrackableTimeSeriesData.Meta):
        app_label = "shop"
        verbose_name = "numbers of a product"
        verbose_name_plural = "numbers of products"


site.register(Product, ProductNumbers)
