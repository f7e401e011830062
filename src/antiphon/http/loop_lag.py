"""Measures how late the event loop is: something that blocks it delays every client.

A timer is set again and again, and the difference between when it was due and when it ran is reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_INTERVAL = 0.5  # seconds


class LoopLag:
    """Measures the running event loop from `start` to `stop`."""

    def __init__(self, observe: Callable[[float], None], interval: float = _INTERVAL) -> None:
        """`observe` gets each delay, in seconds."""
        self._observe = observe
        self._interval = interval
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure; call it on the event loop."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(loop.time() + self._interval, self._measure)

    def stop(self) -> None:
        """End the measurement. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _measure(self) -> None:
        assert self._timer is not None
        self._observe(max(0.0, asyncio.get_running_loop().time() - self._timer.when()))
        self.start()
