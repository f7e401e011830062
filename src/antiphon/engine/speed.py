"""How fast answers are generated, measured from the steps of the engine.

Owns two figures: the tokens of all answers per second, and what one more answer would get. Both come from the times
between the reports of recent steps, so they include everything that a client waits for. A figure that has not been
measured is None. Engines may come and go: the machine stays the same.
"""

from __future__ import annotations

from antiphon.engine.budget import StepCosts

_MEMORY = 0.9  # weight of the past, per step
_LEAST_STEPS = 8  # in which every sequence computed one token; before that nothing is known


class Speed:
    """Follows the steps of a server's engines."""

    def __init__(self) -> None:
        self._costs = StepCosts()
        self._num_decode_steps = 0
        self._mean_tokens = 0.0  # drawn in a step
        self._mean_seconds = 0.0  # of a step
        self._last: float | None = None  # when the last step was reported, if another one followed at once

    def observe(self, now: float, *, num_tokens: int, num_drawn: int, seconds: float, is_idle: bool) -> None:
        """Take a step that was reported at `now`.

        Args:
            now: time.monotonic().
            num_tokens: tokens computed in the step, at least one.
            num_drawn: tokens drawn in it.
            seconds: its duration in the engine, for the first step after a pause.
            is_idle: whether the engine has nothing left to compute.
        """
        if self._last is not None:
            seconds = now - self._last
        self._last = None if is_idle else now
        new = 1.0 if not self._mean_seconds else 1 - _MEMORY
        self._mean_tokens += new * (num_drawn - self._mean_tokens)
        self._mean_seconds += new * (seconds - self._mean_seconds)
        self._costs.observe(num_tokens, seconds)
        self._num_decode_steps += num_tokens == num_drawn

    def interrupt(self) -> None:
        """The engine died: the time until the next step is not that of a step."""
        self._last = None

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
