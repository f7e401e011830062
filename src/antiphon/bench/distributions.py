"""What many measured values have in common: their mean and percentiles.

Percentiles are measured values, never interpolated or extrapolated: where there are too few values for a percentile,
it is the largest of them, and the distribution says so.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from math import fsum

import msgspec

PERCENTILES = (50, 90, 95, 99)


class Distribution(msgspec.Struct, frozen=True):
    """Mean and percentiles of `count` values, in the unit of the values (seconds, for latencies)."""

    count: int
    mean: float
    minimum: float
    p50: float
    p90: float
    p95: float
    p99: float
    maximum: float
    few: list[str] = []  # percentiles for which there are too few values: they equal the maximum

    def value(self, name: str) -> float:
        """The figure of this name: `mean`, `p50`, `p90`, `p95`, `p99`, `minimum` or `maximum`."""
        figure: float = getattr(self, name)
        return figure


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The smallest value that at least `percent` % of the values do not exceed.

    This is the inverse of the empirical distribution function, definition 1 in Hyndman and Fan, "Sample Quantiles in
    Statistical Packages" (1996), and NumPy's `inverted_cdf`.

    Args:
        ordered: one or more values, in ascending order.
        percent: from 0 to 100.
    """
    rank = -(-percent * len(ordered) // 100)
    return ordered[max(0, rank - 1)]


def is_few(count: int, percent: int) -> bool:
    """Whether `count` values are too few for this percentile: none of them is beyond it."""
    return count * (100 - percent) < 100


def distribution(values: Iterable[float]) -> Distribution | None:
    """The distribution of `values`, or None if there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    count = len(ordered)
    return Distribution(
        count=count,
        mean=fsum(ordered) / count,
        minimum=ordered[0],
        maximum=ordered[-1],
        few=[f"p{percent}" for percent in PERCENTILES if is_few(count, percent)],
        **{f"p{percent}": percentile(ordered, percent) for percent in PERCENTILES},
    )


def histogram(values: Iterable[float], edges: Sequence[float]) -> list[int]:
    """How many values are in each interval [edge, next edge); the last interval includes its upper edge."""
    counts = [0] * (len(edges) - 1)
    for value in values:
        position = bisect_right(edges, value) - 1
        if edges[0] <= value <= edges[-1]:
            counts[min(position, len(counts) - 1)] += 1
    return counts
