"""A measurement fills one row of the table or several, from the same contest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.figures import Row
    from benchmarks.places import Places


class Figures(NamedTuple):
    """What was measured for the row of this name, round by round."""

    name: str
    ours: Sequence[float]
    peer: Sequence[float]
    note: str = ""


class Skipped(Exception):
    """Why a measurement can't be made here."""


@dataclass(frozen=True)
class Run:
    """One run of the measurements."""

    places: Places
    short: bool
    wanted: frozenset[str]

    def size(self, full: int, short: int) -> int:
        return short if self.short else full


class Measurement(NamedTuple):
    rows: tuple[Row, ...]
    measure: Callable[[Run], Iterator[Figures]]


MEASUREMENTS: list[Measurement] = []


def measures(*rows: Row) -> Callable[[Callable[[Run], Iterator[Figures]]], Callable[[Run], Iterator[Figures]]]:
    """Register what fills these rows."""

    def register(measure: Callable[[Run], Iterator[Figures]]) -> Callable[[Run], Iterator[Figures]]:
        MEASUREMENTS.append(Measurement(rows, measure))
        return measure

    return register
