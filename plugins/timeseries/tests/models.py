"""Data models of the test site.

The fixture ``django_db_setup`` makes their tables: an app without migrations,
such as ``shop``, gets its tables before there is one of content types.
"""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

import pluginhost_timeseries as trackable
from tests.site.models import Product


class Furniture(Product):
    class Meta:
        app_label = "shop"
        proxy = True


class DailyProduct(trackable.TrackableTimeSeriesData):
    events = {"product viewed": "impressions", "order paid": "revenue"}

    impressions = models.PositiveIntegerField(default=0)
    click_throughs = models.IntegerField(default=0)
    revenue = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    seconds = models.FloatField(default=0)
    note = models.CharField(max_length=20, blank=True, default="new")

    class Meta(trackable.TrackableTimeSeriesData.Meta):
        app_label = "shop"
        managed = False


class ProductTotals(trackable.TrackableData):
    events = {"product viewed": "views"}

    views = models.BigIntegerField(default=0)
    first_seen = models.DateTimeField(db_default=Now())

    class Meta(trackable.TrackableData.Meta):
        app_label = "shop"
        managed = False
        verbose_name_plural = "product totals"
