"""When requests are sent: arrivals of an open loop, users of a ramp, and the pauses of users.

Pure arithmetic over a seeded generator: the same seed gives the same load. Times are in seconds since the stage began.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from antiphon.errors import ConfigError

Arrivals = Literal["poisson", "gamma", "constant"]


def due_times(rate: float, arrivals: Arrivals, burstiness: float, draw: Random) -> Iterator[float]:
    """Endless arrivals, on average `rate` a second.

    poisson: independent of each other, with exponential intervals. gamma: intervals of the gamma distribution with
    shape `burstiness`; 1 is poisson, less comes in bursts, more is more even. constant: all intervals are equal.
    The coefficient of variation of intervals is 1/√burstiness. (The definition is that of vLLM's benchmark.)
    """
    due = 0.0
    while True:
        if arrivals == "constant":
            due += 1 / rate
        elif arrivals == "poisson":
            due += draw.expovariate(rate)
        else:
            due += draw.gammavariate(burstiness, 1 / (rate * burstiness))
        yield due


def ramp_starts(first: int, last: int, seconds: float) -> list[float]:
    """When each user begins: `first` at once, then one after another, evenly, so that the last one comes at `seconds`.

    The number present at time t is `first + floor((last - first) * t / seconds)`.
    """
    steps = last - first
    return [0.0] * first + [seconds * (number / steps) for number in range(1, steps + 1)]


@dataclass(frozen=True)
class ThinkTime:
    """How long a user waits after an answer before the next request: drawn evenly between two bounds, in seconds."""

    least: float = 0.0
    most: float = 0.0

    @classmethod
    def parse(cls, text: str) -> ThinkTime:
        """`2` for always two seconds, `1..5` for between one and five.

        Raises:
            ConfigError: it is neither.
        """
        least, _, most = text.partition("..")
        try:
            found = cls(float(least), float(most or least))
        except ValueError:
            found = cls(-1.0)
        if not 0 <= found.least <= found.most < float("inf"):
            raise ConfigError(f"--think-time is {text!r}; it must be a number of seconds, as 2, or a range, as 1..5")
        return found

    def draw(self, draw: Random) -> float:
        """One pause."""
        return draw.uniform(self.least, self.most)


NO_THINK_TIME = ThinkTime()
