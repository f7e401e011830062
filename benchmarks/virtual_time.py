"""A clock that jumps: an asyncio loop that never waits, and the standard library's monotonic clocks on its time.

`install` replaces `time.monotonic` and `time.perf_counter` for this process. Call it before anything of
`antiphon.engine` is imported, because some modules keep a reference to the function. `time.thread_time` and
`time.time` stay real. What one engine computes ahead of the common time is `Clock.ahead`.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Clock:
    """Simulated seconds: `now` for everybody, and `ahead` for the engine whose step is being computed."""

    now: float = 0.0
    ahead: float = 0.0

    def read(self) -> float:
        return self.now + self.ahead


class _Jump(selectors.SelectSelector):
    """A selector that moves the clock instead of waiting."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("the simulation waits for something that will never happen")
        self._clock.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in simulated time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(_Jump(clock))
        self._virtual = clock

    def time(self) -> float:
        return self._virtual.now


def install() -> Clock:
    """Make `time.monotonic` and `time.perf_counter` simulated for the rest of this process; returns their clock."""
    assert "antiphon.engine.client" not in sys.modules, "the engine's modules already have the real clock"
    clock = Clock()
    time.monotonic = time.perf_counter = clock.read
    return clock


def run(clock: Clock, main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in simulated time."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(main)
