"""Learns what a step costs by its number of rows, for steps that compute last tokens and drafts only.

Two things are learned apart: how long a step takes in relation to others with fewer or more rows, and how fast the
machine is at the moment. A shared or throttled machine may be half as fast for some seconds; that changes the second
but not the first. If both were one number, a number of rows that was measured while the machine was slow would look
expensive for as long as it is not tried again, and it would not be tried because it looks expensive.
"""

from __future__ import annotations

from dataclasses import dataclass

_LEVEL_MEMORY = 0.5  # weight of the past in the machine's speed, per step
_MEMORY = 0.98  # weight of the past in the cost of a number of rows, per step with this number
_FADING = 0.995  # the same, per step with any number of rows
_LINE_MEMORY = 0.98  # weight of the past in the line through all steps, per step
_ROW = 0.02  # the cost of one more row where nothing is known, as a fraction of a step
_ROW_WEIGHT = 4.0  # rows²: how much the steps' rows must vary to outweigh that
_LINE_WEIGHT = 2.0  # steps that the line counts as, against those with the same number of rows
_HICCUP = 1.5  # a step counts as at most this many times its prediction: something else may have delayed it


@dataclass(slots=True)
class _Line:
    """cost ≈ mean + slope · (rows - mean rows), least squares with fading weights."""

    weight: float = 0.0
    rows: float = 0.0  # mean
    cost: float = 0.0  # mean
    variance: float = 0.0  # sum over the weights
    covariance: float = 0.0

    def observe(self, rows: int, cost: float) -> None:
        self.weight = _LINE_MEMORY * self.weight + 1
        off_rows, off_cost = rows - self.rows, cost - self.cost
        self.rows += off_rows / self.weight
        self.cost += off_cost / self.weight
        self.variance = _LINE_MEMORY * self.variance + off_rows * (rows - self.rows)
        self.covariance = _LINE_MEMORY * self.covariance + off_rows * (cost - self.cost)

    def predict(self, rows: int) -> float:
        slope = (self.covariance + _ROW_WEIGHT * _ROW * self.cost) / (self.variance + _ROW_WEIGHT)
        return max(self.cost + max(0.0, slope) * (rows - self.rows), 0.1 * self.cost)


@dataclass(slots=True)
class _Mean:
    """The mean cost of steps with one number of rows."""

    weight: float = 0.0
    cost: float = 0.0
    observed_at: int = 0  # number of the last such step


class RowCosts:
    """Seconds of a step by its rows.

    A prediction is the mean of the last steps with this number of rows, drawn towards a line through all steps: the
    more, the fewer they were and the longer ago. So one slow step does not keep its number of rows from being tried.
    """

    def __init__(self) -> None:
        self.most_rows = 0  # that were measured
        self._level = 0.0  # seconds of a step whose cost is 1
        self._line = _Line()
        self._means: dict[int, _Mean] = {}  # by rows
        self._num_steps = 0

    @property
    def is_known(self) -> bool:
        """Whether a step was measured."""
        return self._num_steps > 0

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from a step."""
        mean = self._means.setdefault(rows, _Mean())
        weight = self._faded(mean)
        if self.is_known:
            expected = self.predict(rows)
            seconds = min(seconds, _HICCUP * expected)
            trust = weight / (weight + _LINE_WEIGHT)  # a surprise says little of the machine if the cost is a guess
            self._level *= (seconds / expected) ** ((1 - _LEVEL_MEMORY) * trust)
            cost = seconds / self._level
        else:
            self._level, cost = seconds, 1.0
        self._num_steps += 1
        self.most_rows = max(self.most_rows, rows)
        mean.weight = weight * _MEMORY + 1
        mean.cost += (cost - mean.cost) / mean.weight
        mean.observed_at = self._num_steps
        self._line.observe(rows, cost)

    def predict(self, rows: int) -> float:
        """Seconds of a step with this number of rows, at the machine's present speed."""
        line = self._line.predict(rows)
        mean = self._means.get(rows)
        if mean is None:
            return self._level * line
        weight = self._faded(mean)
        return self._level * (weight * mean.cost + _LINE_WEIGHT * line) / (weight + _LINE_WEIGHT)

    def _faded(self, mean: _Mean) -> float:
        return mean.weight * _FADING ** (self._num_steps - mean.observed_at)
