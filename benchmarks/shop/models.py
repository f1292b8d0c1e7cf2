"""What a shop has, and what is counted of it."""

from __future__ import annotations

from django.db import models

from pluginhost_timeseries.models import TrackableTimeSeriesData


class Order(models.Model):
    """The site's own row in a transaction."""

    number = models.CharField(max_length=40)

    def __str__(self) -> str:
        return self.number


class Product(models.Model):
    name = models.CharField(max_length=40)

    def __str__(self) -> str:
        return self.name


class ProductData(TrackableTimeSeriesData):
    """What the plugin timeseries counts."""

    events = {"order_paid": "sales"}
    sales = models.BigIntegerField(default=0)

    class Meta(TrackableTimeSeriesData.Meta):
        pass


class OldProductData(models.Model):
    """The same table for django-trackable's way of counting."""

    parent = models.ForeignKey(Product, models.CASCADE)
    collected_during = models.DateField(db_index=True)
    sales = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["parent", "collected_during"], name="old_one_a_day")]

    def __str__(self) -> str:
        return f"{self.parent_id}, {self.collected_during}"
