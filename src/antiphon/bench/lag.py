"""How late the load test's own event loop is.

A client that lags measures itself: what it takes for the server's delay is its own. A timer that should fire every
10 ms tells by how much the loop is late at that moment.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress

PERIOD = 0.01  # seconds
# Upper bounds of the histogram, in seconds.
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, math.inf)


class LagMeter:
    """Measures from `start` to `stop`."""

    def __init__(self) -> None:
        self._lags: list[float] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin anew."""
        self._lags = []
        self._task = asyncio.create_task(self._measure())

    async def stop(self) -> None:
        """Measure no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + PERIOD
            await asyncio.sleep(PERIOD)
            self._lags.append(max(0.0, loop.time() - due))

    @property
    def p99(self) -> float:
        """Seconds that 99 of 100 timers were late at most; 0 if there were none."""
        ordered = sorted(self._lags)
        return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else 0.0

    @property
    def max(self) -> float:
        """The largest, in seconds."""
        return max(self._lags, default=0.0)

    @property
    def histogram(self) -> list[int]:
        """How many timers were late by at most each of BUCKETS, and by more than the bound before it."""
        counts = [0] * len(BUCKETS)
        for lag in self._lags:
            counts[next(at for at, bound in enumerate(BUCKETS) if lag <= bound)] += 1
        return counts
