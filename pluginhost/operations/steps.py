"""Large work in steps: each a transaction of some hundred rows, so that workers go on beside it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import OperationalError, connections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import QuerySet

T = TypeVar("T")

#: Rows of one transaction, at most.
STEP = 500
#: Ids that are read at a time: a database may have to sort all that it finds for each look.
LOOK_AHEAD = 20_000
#: Seconds between two tries of a step that the database refused.
PAUSES = (0.1, 0.5, 2.0)


def pages(found: QuerySet[Any]) -> Iterator[list[int]]:
    """The ids of these rows in their order, as many at a time as one step takes."""
    ids = found.order_by("id").values_list("id", flat=True)
    last = 0
    while read := list(ids.filter(id__gt=last)[:LOOK_AHEAD]):
        for start in range(0, len(read), STEP):
            yield read[start : start + STEP]
        last = read[-1]


def tried_again(act: Callable[[], T], using: str) -> T:
    """Take one step. A database that refuses, such as one that ends a deadlock, is asked again.

    Not within a transaction that is not ours: what it has done so far may be undone.
    """
    for pause in PAUSES:
        try:
            return act()
        except OperationalError:
            if connections[using].in_atomic_block:
                raise
            connections[using].close_if_unusable_or_obsolete()
            time.sleep(pause)
    return act()
