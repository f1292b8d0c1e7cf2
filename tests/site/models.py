from __future__ import annotations

import uuid

from django.db import models


class Order(models.Model):
    number = models.CharField(max_length=40)


class Product(models.Model):
    name = models.CharField(max_length=40)


class Voucher(models.Model):
    """A parent whose key is a UUID."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)


class Country(models.Model):
    """A parent whose key is text."""

    code = models.CharField(max_length=2, primary_key=True)
