from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.urls import reverse

if TYPE_CHECKING:
    from decimal import Decimal


class Product(models.Model):
    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=80)
    tagline = models.CharField(max_length=120)
    description = models.TextField()
    price = models.DecimalField(max_digits=8, decimal_places=2)
    category = models.CharField(max_length=40)
    maker = models.CharField(max_length=80)
    maker_url = models.URLField()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("shop:product", args=[self.slug])

    @property
    def picture(self) -> str:
        """The static file that shows it."""
        return f"shop/products/{self.slug}.svg"


class Order(models.Model):
    # A UUID: SQLite would give the number of an order that was rolled back to the next one.
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    customer = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="orders"
    )
    name = models.CharField(max_length=80)
    email = models.EmailField()
    voucher = models.CharField(max_length=20, blank=True)
    total = models.DecimalField(max_digits=10, decimal_places=2)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created"]

    def __str__(self) -> str:
        return str(self.pk)

    def get_absolute_url(self) -> str:
        return reverse("shop:order", args=[self.pk])


class OrderLine(models.Model):
    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, models.PROTECT)
    quantity = models.PositiveIntegerField()
    price = models.DecimalField(max_digits=8, decimal_places=2)

    def __str__(self) -> str:
        return f"{self.quantity} of {self.product}"

    @property
    def total(self) -> Decimal:
        return self.quantity * self.price


class OptOut(models.Model):
    """A user who is not to be tracked, by nothing, whatever was agreed to on which computer."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, related_name="opt_out")

    def __str__(self) -> str:
        return str(self.user)
