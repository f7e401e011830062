"""When refused requests should come back: each gets a time of its own, so that they do not come back together.

Owns the tickets that were given out and not used. A ticket is recognised by the identity of its request, a digest of
the client and the prompt, since the official SDKs send the same body again. It can be used from shortly before its time
until a while after it. Nothing here knows the engine or measures time: the caller passes `now`, in seconds.

Also owns the budget of retries without a ticket that may go ahead of new requests: a share of what was admitted, so
that clients that retry all the time do not keep out the others.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field

LONGEST = 60.0  # seconds; the official SDKs ignore a longer Retry-After
EARLY = 0.25  # seconds before its time at which a ticket can be used: a client's clock is not exact
GRACE = 10.0  # seconds after its time until which it can be used
_MAX_TICKETS = 4096
_MAX_OF_ONE = 64  # identical requests of one client


@dataclass(slots=True)
class Tickets:
    """The tickets that are out."""

    _times: list[tuple[float, bytes]] = field(default_factory=list)  # in order
    _of: dict[bytes, list[float]] = field(default_factory=dict)  # in order

    def outstanding(self, now: float, besides: bytes = b"") -> int:
        """How many tickets are out, without those of the identity `besides`."""
        self._expire(now)
        return len(self._times) - len(self._of.get(besides, ()))

    def issue(self, identity: bytes, now: float, earliest: float, spacing: float) -> float | None:
        """Give out a ticket; returns the seconds until its time, or None if there is none within `LONGEST`.

        `earliest`: seconds until the request could be accepted if no tickets were out; `spacing`: seconds that each of
        those adds.
        """
        ahead = self.outstanding(now)
        wait = max(0.0, earliest) + ahead * spacing
        mine = self._of.setdefault(identity, [])
        if wait > LONGEST or ahead >= _MAX_TICKETS or len(mine) >= _MAX_OF_ONE:
            if not mine:
                del self._of[identity]
            return None
        insort(mine, now + wait)
        insort(self._times, (now + wait, identity))
        return wait

    def pending(self, identity: bytes, now: float) -> float | None:
        """Seconds until the first ticket of this identity can be used, at least 0; None if it has none."""
        self._expire(now)
        times = self._of.get(identity)
        return max(0.0, times[0] - EARLY - now) if times else None

    def take_back(self, identity: bytes, now: float) -> bool:
        """Use up the first ticket of this identity if its time has come; returns whether it had one."""
        if self.pending(identity, now) != 0:
            return False
        self._forget(self._of[identity][0], identity)
        return True

    def _expire(self, now: float) -> None:
        for time, identity in self._times[: bisect_right(self._times, (now - GRACE, b""))]:
            self._forget(time, identity)

    def _forget(self, time: float, identity: bytes) -> None:
        self._times.remove((time, identity))
        self._of[identity].remove(time)
        if not self._of[identity]:
            del self._of[identity]


@dataclass(slots=True)
class RetryBudget:
    """How many retries without a ticket may go ahead of new requests."""

    share: float = 0.2  # of the requests that were admitted
    most: float = 10.0
    left: float = 10.0

    def earn(self) -> None:
        """A request was admitted."""
        self.left = min(self.most, self.left + self.share)

    def spend(self) -> bool:
        """Let one retry go ahead; returns whether it may."""
        if self.left < 1:
            return False
        self.left -= 1
        return True
