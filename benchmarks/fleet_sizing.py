"""How much one engine can be asked for: the highest rate at which first tokens come soon enough and nobody is refused.

The rate is raised step by step until that no longer holds, since a fleet near its limit is too noisy for a bisection.
Pure: the caller simulates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_FACTOR = 1.2  # from one rate to the next
_FIRST_USE = 0.2  # of an engine's tokens a second at the first rate
_ENGINE_TOKENS = 180.0  # a second, roughly


def most(simulate: Callable[[float], dict[str, Any]], tokens_per_request: float, limit: float) -> dict[str, Any] | None:
    """The figures at the highest rate whose 95th percentile of first tokens is within `limit` seconds.

    `simulate` returns the figures at a rate, in requests a second of each engine. None: not even the lowest rate is.
    """
    best, rate = None, _FIRST_USE * _ENGINE_TOKENS / tokens_per_request
    while True:
        figures = simulate(rate)
        first = figures["first_token"]["p95"]
        if figures["refused_once"] > 0 or first is None or first > limit:
            return best
        best, rate = figures, rate * _FACTOR
