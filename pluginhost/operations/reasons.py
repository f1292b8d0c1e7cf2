"""Takes a person's ids out of the texts that say why something failed: a receiver may have named them.

A failure of a whole batch is the reason of all its events, also of other people's.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from pluginhost.models import Delivery, Lane
from pluginhost.operations.steps import STEP, tried_again

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import QuerySet

#: Stands where an id was.
STRUCK = "…"


def strike(ids: Iterable[str], using: str) -> None:
    """Replace these ids, as whole words, in the reasons of deliveries and in the troubles of lanes."""
    for id_ in ids:
        _strike_in(Delivery.objects.using(using), "reason", id_, using)
        _strike_in(Lane.objects.using(using), "trouble", id_, using)


def _strike_in(rows: QuerySet[Delivery] | QuerySet[Lane], field: str, id_: str, using: str) -> None:
    word = re.compile(rf"(?<!\w){re.escape(id_)}(?!\w)")
    texts = set(rows.filter(**{f"{field}__contains": id_}).values_list(field, flat=True).distinct())
    for text in texts:
        if (struck := word.sub(STRUCK, text)) != text:
            tried_again(partial(_replace, rows, field, text, struck), using)


def _replace(rows: QuerySet[Delivery] | QuerySet[Lane], field: str, text: str, struck: str) -> None:
    keys = list(rows.filter(**{field: text}).values_list("pk", flat=True))
    for start in range(0, len(keys), STEP):
        rows.filter(**{"pk__in": keys[start : start + STEP], field: text}).update(**{field: struck})
