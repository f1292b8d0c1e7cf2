"""What a counter is: which fields count, how much they hold, and what an event's value comes to in one."""

from __future__ import annotations

import sys
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.backends.base.operations import BaseDatabaseOperations

from pluginhost import PermanentError

if TYPE_CHECKING:
    Counter = models.Field[Any, Any]
Amount = int | float | Decimal


def counter_fields(model: type[models.Model]) -> dict[str, Counter]:
    """The numeric fields of a model by name, without keys."""
    return {
        field.name: field
        for field in model._meta.concrete_fields
        if isinstance(field, (models.IntegerField, models.DecimalField, models.FloatField)) and not field.primary_key
    }


@lru_cache(maxsize=1000)
def limit(field: Counter) -> Amount:
    """The largest number that the column holds on PostgreSQL; other databases, which hold more, get no more."""
    if isinstance(field, models.IntegerField):
        ranges = BaseDatabaseOperations.integer_field_ranges
        return ranges.get(field.get_internal_type(), ranges["BigIntegerField"])[1]
    if isinstance(field, models.DecimalField) and field.max_digits is not None:
        return Decimal((0, (9,) * field.max_digits, -(field.decimal_places or 0)))
    return sys.float_info.max


def amount(field: Counter, value: float) -> Amount:
    """What ``value`` adds to this field. Raises ``PermanentError`` if the field cannot hold it.

    A decimal field rounds to its places, as Django does when it saves; an integer
    field takes whole numbers only.
    """
    if abs(value) > limit(field):
        raise PermanentError(f"the value {value} is too large for {field}")
    if isinstance(field, models.FloatField):
        return float(value)
    if isinstance(field, models.DecimalField):
        return _rounded(field, Decimal(str(value)))
    if value != int(value):
        raise PermanentError(f"the value {value} is not a whole number, but {field} counts whole numbers")
    return int(value)


def _rounded(field: models.DecimalField[Any, Any], value: Decimal) -> Decimal:
    if field.decimal_places is None:
        return value
    return value.quantize(Decimal(1).scaleb(-field.decimal_places), context=field.context)
