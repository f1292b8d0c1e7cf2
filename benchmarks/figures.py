"""Rows, what was measured for them, and what it comes to. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Row:
    """One line of the table: what is compared with what, and what the ratio is to be."""

    name: str
    what: str
    peer: str
    unit: str
    at: Literal["most", "least"] | None = None
    target: float | None = None
    """What the ratio of ours to the peer's is to be, at most or at least. None: it is only looked at."""
    must: bool = True

    @property
    def wanted(self) -> str:
        return f"at {self.at} {self.target:g}" if self.target is not None else ""


@dataclass(frozen=True)
class Spread:
    """A median between its quartiles."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))


@dataclass(frozen=True)
class Result:
    """What became of a row. ``skipped`` says why there are no figures."""

    row: Row
    ours: Spread | None = None
    peer: Spread | None = None
    ratio: Spread | None = None
    """Of the pairs that were measured right after each other: what slows both down cancels."""
    skipped: str = ""
    note: str = ""

    @classmethod
    def of(cls, row: Row, ours: Sequence[float], peer: Sequence[float], note: str = "") -> Result:
        if not all(peer):  # nothing of the peer's arrived: there is no such number
            return cls(row, Spread.of(ours), Spread.of(peer), note=note)
        ratios = [mine / theirs for mine, theirs in zip(ours, peer, strict=True)]
        return cls(row, Spread.of(ours), Spread.of(peer), Spread.of(ratios), note=note)

    @property
    def verdict(self) -> str:
        row = self.row
        if self.ratio is None or row.target is None:
            return ""
        reached = self.ratio.median <= row.target if row.at == "most" else self.ratio.median >= row.target
        return "reached" if reached else "missed"

    def as_json(self) -> dict[str, Any]:
        spreads = {name: getattr(self, name) for name in ("ours", "peer", "ratio")}
        return {
            **{name: getattr(self.row, name) for name in ("name", "what", "peer", "unit", "must")},
            "wanted": self.row.wanted,
            "verdict": self.verdict,
            "skipped": self.skipped,
            "note": self.note,
            "figures": {name: spread and vars(spread) for name, spread in spreads.items()},
        }


def number(value: float) -> str:
    """Three digits that count, thousands apart."""
    if value >= 1000:
        return f"{round(value, -1 if value < 10_000 else -2):,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
