"""What a step costs: a model made of measured steps, for simulations.

A step that computes `tokens` tokens, draws a next token for `rows` of them, and whose tokens look at `pairs` tokens at
or before them in sum, takes

    linear(tokens) + head(rows) + per_pair * pairs + between

seconds. `linear` is the matrix products of all layers and whatever else grows with the tokens, `head` the product that
gives the logits; both are curves through measured points. Attention reads the keys and values at and before each
token. `between` is the rest of the engine's cycle. The points come from a file that `steps.py` wrote, which measures
each part. `errors_of` compares a model with the steps in such a file.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

Point = tuple[float, float]  # (tokens or rows, seconds)


@dataclass(frozen=True, slots=True)
class Curve:
    """Straight lines between points in rising order; the first and the last line go on beyond them."""

    points: tuple[Point, ...]  # at least two

    def __call__(self, at: float) -> float:
        index = min(max(1, bisect_left(self.points, (at, 0.0))), len(self.points) - 1)
        (left, low), (right, high) = self.points[index - 1 : index + 1]
        return low + (high - low) * (at - left) / (right - left)

    @classmethod
    def through(cls, points: Iterable[Point]) -> Curve:
        """Through the median of the points at each position."""
        found: dict[float, list[float]] = defaultdict(list)
        for position, seconds in points:
            found[position].append(seconds)
        return cls(tuple((position, median(found[position])) for position in sorted(found)))

    @classmethod
    def affine(cls, fixed: float, slope: float) -> Curve:
        return cls(((0.0, fixed), (1.0, fixed + slope)))


@dataclass(frozen=True, slots=True)
class StepModel:
    """Seconds of a step by what it computes."""

    linear: Curve  # of the tokens
    head: Curve  # of the rows that are drawn from
    per_pair: float = 0.0  # seconds for each computed token and each token at or before it
    between: float = 0.0  # seconds that a cycle takes besides

    def seconds(self, tokens: int, rows: int, pairs: int) -> float:
        """The duration of a step; `rows`: next tokens that are drawn; `pairs`: sum of the positions, from 1."""
        head = self.head(rows) if rows else 0.0
        return self.linear(tokens) + head + self.per_pair * pairs + self.between

    @classmethod
    def affine(cls, fixed: float, per_token: float) -> StepModel:
        """A step of so many seconds, and so many more for each token, as the fake runner's."""
        return cls(Curve.affine(fixed, per_token), Curve.affine(0.0, 0.0))

    @classmethod
    def from_steps(cls, path: Path, between: float = 0.0) -> StepModel:
        """The model that a file of `steps.py` gives; `between`: seconds between two steps."""
        cases = _read(path)
        return cls(
            Curve.through((case.tokens, case.linear) for case in cases),
            Curve.through((case.rows, case.parts["head"]) for case in cases),
            sum(case.parts["attention"] for case in cases) / sum(case.pairs for case in cases),
            between,
        )


@dataclass(frozen=True, slots=True)
class _Case:
    """A measured step."""

    tokens: int
    rows: int
    pairs: int
    seconds: float
    parts: Mapping[str, float]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> _Case:
        users, context, each = row["users"], row["context"], row["tokens"]
        pairs = users * (each * context + each * (each + 1) // 2)
        return cls(users * each, users, pairs, row["seconds"], row["parts"])

    @property
    def linear(self) -> float:
        return self.parts["linear"] + self.parts["rest"]


def _read(path: Path) -> list[_Case]:
    """The steps in a file of `steps.py` that draw the likeliest token."""
    rows = json.loads(path.read_text())["cases"]
    return [_Case.of(row) for row in rows if not row["temperature"]]


def errors_of(model: StepModel, path: Path) -> Sequence[float]:
    """By which share the model is off, for each step in a file of `steps.py`; negative: too short."""
    return [model.seconds(case.tokens, case.rows, case.pairs) / case.seconds - 1 for case in _read(path)]
