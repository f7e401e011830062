"""How fast answers are generated, measured from the steps of one engine.

Owns two figures: the tokens of all answers per second, and what one more answer would get. Both come from the times
that the engine reports for its recent steps, including the time between them, so a busy front does not change them. A
figure that has not been measured is None. An engine that dies loses nothing here, since the next one runs on the same
machine.
"""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.engine.budget import StepCosts

_LATEST = 0.05  # weight of the latest step, once there are enough
_LEAST_STEPS = 20  # in which every sequence computed one token; before that nothing is known


class Speed:
    """Follows the steps of an engine."""

    def __init__(self, costs: StepCosts) -> None:
        """`costs`: what the engine's steps cost; their owner updates them."""
        self._costs = costs
        self._num_steps = self._num_decode_steps = 0
        self._mean_tokens = 0.0  # drawn in a step
        self._mean_seconds = 0.0  # of a step

    def observe(self, num_tokens: int, num_drawn: int, seconds: float) -> None:
        """Take a step: the tokens computed in it, at least one; the tokens drawn; and its duration."""
        self._num_steps += 1
        new = max(_LATEST, 1 / self._num_steps)
        self._mean_tokens += new * (num_drawn - self._mean_tokens)
        self._mean_seconds += new * (seconds - self._mean_seconds)
        self._num_decode_steps += num_tokens == num_drawn

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of all answers per second, in the latest steps; None before the first."""
        return self._mean_tokens / self._mean_seconds if self._mean_seconds > 0 else None

    def of_one_among(self, num_answers: int) -> float | None:
        """Tokens per second that each of so many answers gets while no prompt is read; None if that is not known."""
        if self._num_decode_steps < _LEAST_STEPS:
            return None
        seconds = self._costs.predict(num_answers)
        return 1 / seconds if seconds > 0 else None


class CombinedSpeed:
    """The speed of engines that serve side by side."""

    def __init__(self, speeds: Sequence[Speed], num_engines: int) -> None:
        """`speeds`: of the engines that generate answers now; `num_engines`: among which answers are divided."""
        self._speeds = speeds
        self._num_engines = max(1, num_engines)

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of all answers per second; None before the first step."""
        known = [rate for speed in self._speeds if (rate := speed.tokens_per_second) is not None]
        return sum(known) if known else None

    def of_one_among(self, num_answers: int) -> float | None:
        """Tokens per second that each of so many answers gets; None if that is not known of any engine."""
        each = -(-num_answers // self._num_engines)
        known = [rate for speed in self._speeds if (rate := speed.of_one_among(each)) is not None]
        return sum(known) / len(known) if known else None
