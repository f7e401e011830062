"""A circuit breaker for one engine: when it keeps failing, new requests are refused at once instead of waiting for it.

Owns three states. *Closed*: requests pass. If there were enough failures within a window of time, and enough of all
outcomes were failures, the breaker opens. *Open*: requests are refused until a delay is over. *Half-open*: exactly one
request, the probe, is let through. If the engine works on it, the breaker closes; if it fails, the breaker opens again
for twice as long. A breaker that opens again soon after it closed also stays open for longer.

An outcome counts only in the period between two changes of the state in which its request was accepted, so requests
that were accepted before the breaker opened do not close it. A breaker knows neither requests nor engines, and the
clock is passed in. For one event loop. Source of the pattern: M. Nygard, Release It!, 2007, "Circuit Breaker".
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from antiphon.config import ServerConfig
from antiphon.engine.requests.admitted import Permit
from antiphon.errors import EngineUnavailable

LONGEST_DELAY = 60.0  # seconds
PROBE_SECONDS = 1.0  # after which a client that is refused because of a running probe may try again
_NUM_SLOTS = 10  # of a window; outcomes are forgotten a slot at a time


class BreakerState(IntEnum):
    """The numbers are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a breaker opens, and for how long."""

    failures: int = 3  # within the window, at least; 0: never open
    failure_rate: float = 0.5  # of all outcomes within the window, at least
    window: float = 120.0  # seconds
    delay: float = 5.0  # seconds for which it stays open the first time

    @classmethod
    def of(cls, server: ServerConfig) -> BreakerSettings:
        """As the server's settings say."""
        return cls(
            failures=server.breaker_failures,
            failure_rate=server.breaker_failure_rate,
            window=server.breaker_window,
            delay=server.breaker_delay,
        )


class Breaker:
    """The breaker of one engine."""

    def __init__(self, settings: BreakerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds and never goes back."""
        self._settings = settings
        self._clock = clock
        self._outcomes = _Outcomes(settings.window / _NUM_SLOTS)
        self._is_closed = True
        self._opens_until = 0.0
        self._closed_at = -float("inf")  # when it last closed after it had been open
        self._num_reopened = 0  # in a row
        self._period = 0
        self._probe: Permit | None = None
        self.num_opened = 0  # only grows

    def configure(self, settings: BreakerSettings) -> None:
        """Use other settings from now on. If the window is another, outcomes are counted anew."""
        if settings.window != self._settings.window:
            self._outcomes = _Outcomes(settings.window / _NUM_SLOTS)
        self._settings = settings

    @property
    def state(self) -> BreakerState:
        if self._is_closed:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._clock() < self._opens_until else BreakerState.HALF_OPEN

    @property
    def outcomes(self) -> tuple[int, int]:
        """The successes and failures that count at this moment."""
        return self._outcomes.count(self._clock())

    def retry_after(self, *, is_ready: bool = True) -> float | None:
        """Seconds after which a request that is refused now may be accepted; None if it would be accepted.

        `is_ready`: whether the engine accepts work. While it does not, there is no use in a probe.
        """
        if self._is_closed:
            return None
        left = self._opens_until - self._clock()
        if left > 0:
            return left
        return None if is_ready and self._probe is None else PROBE_SECONDS

    def check(self, *, is_ready: bool = True) -> None:
        """Raise EngineUnavailable if a request would be refused now; changes nothing."""
        retry_after = self.retry_after(is_ready=is_ready)
        if retry_after is not None:
            raise EngineUnavailable(retry_after)

    def begin(self) -> Permit:
        """The permit of a request that the engine gets now. It is the probe if one is wanted.

        While the breaker is open, an engine still gets requests that were accepted before. They tell nothing new.
        """
        if self._is_closed:
            return Permit(self._period)
        if self.retry_after() is not None:
            return Permit()
        self._probe = Permit(self._period, is_probe=True)
        return self._probe

    def succeeded(self, permit: Permit) -> None:
        """A request was answered; of a probe, the engine has worked on it."""
        if permit.period != self._period:
            return
        if permit.is_probe:
            self._close()
        else:
            self._outcomes.add(self._clock(), is_failure=False)

    def failed(self, permit: Permit) -> None:
        """The engine failed a request."""
        if permit.period == self._period:
            self._note_failure()

    def abandoned(self, permit: Permit) -> None:
        """A request ended, or left the engine, without telling anything about it; another one may be the probe."""
        if permit is self._probe:
            self._probe = None

    def engine_failed(self) -> None:
        """The engine died, hung or could not be started. This counts once, however many requests it had."""
        if self.state is not BreakerState.OPEN:
            self._note_failure()

    def _note_failure(self) -> None:
        now = self._clock()
        if not self._is_closed:
            self._num_reopened += 1
            self._open(now)
            return
        self._outcomes.add(now, is_failure=True)
        successes, failures = self._outcomes.count(now)
        settings = self._settings
        if 0 < settings.failures <= failures and failures >= settings.failure_rate * (successes + failures):
            is_soon = now - self._closed_at <= settings.window
            self._num_reopened = self._num_reopened + 1 if is_soon else 0
            self._open(now)

    def _open(self, now: float) -> None:
        settings = self._settings
        longest = max(settings.delay, LONGEST_DELAY)
        self._opens_until = now + min(settings.delay * 2.0 ** min(self._num_reopened, 32), longest)
        self._is_closed = False
        self.num_opened += 1
        self._begin_period()

    def _close(self) -> None:
        self._is_closed = True
        self._closed_at = self._clock()
        self._begin_period()

    def _begin_period(self) -> None:
        self._period += 1
        self._probe = None
        self._outcomes.clear()


class _Outcomes:
    """The numbers of successes and failures within the last slots of time; the memory does not grow with them."""

    def __init__(self, slot_seconds: float) -> None:
        self._slot_seconds = slot_seconds
        self._slots: deque[list[int]] = deque()  # [number of the slot, successes, failures], oldest first

    def add(self, now: float, *, is_failure: bool) -> None:
        number = int(now // self._slot_seconds)
        if not self._slots or self._slots[-1][0] != number:
            self._slots.append([number, 0, 0])
        self._slots[-1][1 + is_failure] += 1
        self._forget(number)

    def count(self, now: float) -> tuple[int, int]:
        self._forget(int(now // self._slot_seconds))
        return sum(slot[1] for slot in self._slots), sum(slot[2] for slot in self._slots)

    def clear(self) -> None:
        self._slots.clear()

    def _forget(self, number: int) -> None:
        while self._slots and self._slots[0][0] <= number - _NUM_SLOTS:
            self._slots.popleft()
