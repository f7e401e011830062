"""Ends accepted requests that no engine has begun in time.

Owns the timers: each request has one at most, which the accounts cancel when it ends. A request that has begun is never
ended here. How long a request can still wait depends on the work before it, so the owner says that anew each time.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from antiphon.engine.requests.unfinished import Unfinished

_LEAST_GRACE = 0.5  # seconds


class ExpiryOwner(Protocol):
    """What knows how long requests can wait."""

    @property
    def longest_cycle(self) -> float:
        """Seconds of an engine's step at the moment; no request can begin before the current one has ended."""
        ...

    def time_left(self, unfinished: Unfinished) -> float:
        """Seconds that a request which has not begun can still wait."""
        ...

    def give_up(self, unfinished: Unfinished) -> None:
        """End a request that has waited too long."""
        ...


class Expiry:
    """The timers of waiting requests."""

    def __init__(self, owner: ExpiryOwner) -> None:
        self._owner = owner

    def check_after(self, unfinished: Unfinished, seconds: float) -> None:
        """Check after so many seconds whether a request has begun, or can still begin in time."""
        grace = max(_LEAST_GRACE, 2 * self._owner.longest_cycle)
        loop = asyncio.get_running_loop()
        unfinished.expiry = loop.call_later(seconds + grace, self._check, unfinished)

    def _check(self, unfinished: Unfinished) -> None:
        if unfinished.has_begun:
            return
        if (left := self._owner.time_left(unfinished)) > 0:  # steps or answers have become shorter
            self.check_after(unfinished, left)
        else:
            self._owner.give_up(unfinished)
