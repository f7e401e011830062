"""What a request was given when it was accepted: a prediction, and a permit of the breaker of its engine. Leaves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prediction:
    """From now on, in seconds."""

    wait: float = 0.0  # until its prompt is being computed
    first_token: float = 0.0
    end: float = 0.0

    def latest_start(self, first_token: float, end: float) -> float:
        """When it has to begin, to have its first token and its end no later than at these times."""
        return min(first_token - (self.first_token - self.wait), end - (self.end - self.wait))


@dataclass(slots=True, eq=False)
class Permit:
    """A request that was given to the engine; its outcome is reported with this."""

    period: int = -1  # of the breaker; by default none, so that no outcome counts
    is_probe: bool = False
