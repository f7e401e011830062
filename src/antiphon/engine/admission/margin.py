"""By how much predictions must be raised so that nearly all requests that are accepted because of them are in time.

A prediction is a mean. A server with too much work accepts requests until the predicted time is all the time that a
client has, so without a margin many of them would be late, and their work would be done for nobody. The factor follows
a quantile of actual over predicted time, as in stochastic approximation (Robbins and Monro, Annals of Mathematical
Statistics 22, 1951): each request that took longer than the raised prediction moves it up, each other one moves it down
by much less, and it rests where the shares balance. This module does not know requests or time.
"""

from __future__ import annotations

from dataclasses import dataclass

_UP = 0.04
_LATE = 0.03  # the share of accepted requests that may be late
_MOST = 2.0  # a server whose answers are of very different lengths would otherwise refuse nearly everything


@dataclass(slots=True)
class Margin:
    """A factor for predictions, at least 1."""

    factor: float = 1.0

    def observe(self, predicted: float, actual: float) -> None:
        """A request for which `predicted` seconds were predicted took `actual` seconds."""
        is_late = actual > predicted * self.factor
        self._move(_UP * (1 - _LATE) if is_late else -_UP * _LATE)

    def observe_at_least(self, predicted: float, seconds: float) -> None:
        """It was given up after so many seconds, and would have taken longer."""
        if seconds > predicted * self.factor:
            self._move(_UP * (1 - _LATE))

    def _move(self, by: float) -> None:
        self.factor = min(max(1.0, self.factor + by), _MOST)
