"""When refused requests should come back: each gets a time of its own, so that they do not come back together.

Owns the tickets that were given out and not used. A ticket is recognised by the identity of its request, a digest of
the client and the request, since the official SDKs send the same body again. It can be used from shortly before its
time until a while after it. Tickets of one client are in order; clients take turns, so the tickets of another client
delay a request only as far as that client's share goes. This module does not know the engine and does not measure time:
the caller passes `now`, in seconds.

Also owns the budget of retries without a ticket that may go ahead of new requests. It is a share of what was accepted,
so that clients that retry all the time do not keep out the others.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from dataclasses import dataclass, field

LONGEST = 60.0  # seconds; the official SDKs ignore a longer Retry-After
EARLY = 0.25  # seconds before its time at which a ticket can be used: a client's clock is not exact
GRACE = 10.0  # seconds after its time until which it can be used
AWAY = 5.0  # seconds after its refusal in which a request that got no ticket is refused again without looking
_MAX_TICKETS = 4096
_MAX_OF_ONE = 64  # identical requests of one client


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a ticket."""

    identity: bytes  # of the request
    client: str = ""  # whose fair share it uses
    place: int = 1  # of the request among its client's; 1: the first


@dataclass(slots=True)
class Tickets:
    """The tickets that were given out."""

    _times: list[tuple[float, bytes, str]] = field(default_factory=list)  # in order
    _of: dict[bytes, list[float]] = field(default_factory=dict)  # in order
    _num_of: Counter[str] = field(default_factory=Counter)  # tickets of each client

    def ahead(self, now: float, holder: Holder) -> int:
        """How many tickets a request has to wait for, without those of its own identity."""
        self._expire(now)
        own = self._num_of[holder.client] - len(self._of.get(holder.identity, ()))
        place = holder.place + own
        return own + sum(min(count, place) for client, count in self._num_of.items() if client != holder.client)

    def issue(self, holder: Holder, now: float, earliest: float, spacing: float) -> float | None:
        """Give out a ticket; returns the seconds until its time, or None if there is none within `LONGEST`.

        `earliest`: seconds until the request could be accepted if there were no tickets; `spacing`: seconds that each
        ticket adds.
        """
        mine = self._of.get(holder.identity, [])
        wait = max(0.0, earliest) + (self.ahead(now, holder) + len(mine)) * spacing
        if wait > LONGEST or len(self._times) >= _MAX_TICKETS or len(mine) >= _MAX_OF_ONE:
            return None
        insort(self._of.setdefault(holder.identity, []), now + wait)
        insort(self._times, (now + wait, holder.identity, holder.client))
        self._num_of[holder.client] += 1
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
        at = bisect_right(self._times, (self._of[identity][0], identity))
        self._forget(at)
        return True

    def _expire(self, now: float) -> None:
        while self._times and self._times[0][0] <= now - GRACE:
            self._forget(0)

    def _forget(self, at: int) -> None:
        time, identity, client = self._times.pop(at)
        self._of[identity].remove(time)
        if not self._of[identity]:
            del self._of[identity]
        self._num_of[client] -= 1
        if not self._num_of[client]:
            del self._num_of[client]


@dataclass(slots=True)
class TurnedAway:
    """The requests that were refused without a ticket in the last `AWAY` seconds."""

    _until: dict[bytes, float] = field(default_factory=dict)  # in order

    def note(self, identity: bytes, now: float) -> None:
        """A request was refused without a ticket."""
        self._until[identity] = self._until.pop(identity, now + AWAY)
        if len(self._until) > _MAX_TICKETS:
            del self._until[next(iter(self._until))]

    def knows(self, identity: bytes, now: float) -> bool:
        """Whether it was refused a moment ago."""
        if self._until.get(identity, now) > now:
            return True
        self._until.pop(identity, None)
        return False


@dataclass(slots=True)
class RetryBudget:
    """How many retries without a ticket may go ahead of new requests."""

    share: float = 0.2  # of the requests that were accepted
    most: float = 10.0
    left: float = 10.0

    def earn(self) -> None:
        """A request was accepted."""
        self.left = min(self.most, self.left + self.share)

    def spend(self) -> bool:
        """Let one retry go ahead; returns whether it may."""
        if self.left < 1:
            return False
        self.left -= 1
        return True
