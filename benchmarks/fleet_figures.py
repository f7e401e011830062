"""The figures of a simulated fleet: waiting, throughput, prefix hits, refusals, fairness, and the front's own cost.

Only what happens after the warm-up counts. First tokens are those of requests that were sent after it, and at least
`TAIL` seconds before the end. Pure, but for the types of what it reads.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

TAIL = 10.0  # seconds


class Watched(Protocol):
    """One request, as `fleet_traffic.Seen` has it."""

    key: str
    sent: float
    wanted_tokens: int
    refusals: int
    arrivals: list[float]

    @property
    def first_token(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Window:
    """The simulated seconds that count."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of all are at or below; None: there are none."""
    ordered = sorted(values)
    rank = math.ceil(round(share * len(ordered), 6))  # rounded, since 0.07 * 100 is more than 7
    return ordered[max(0, rank - 1)] if ordered else None


def waits(seen: Sequence[Watched], window: Window) -> dict[str, Any]:
    """Seconds to the first token, and how many requests had to do without one."""
    asked = [each for each in seen if window.begin <= each.sent < window.end - TAIL]
    answered = [each.first_token for each in asked if each.arrivals]
    gaps = [
        after - before
        for each in asked
        for before, after in zip(each.arrivals, each.arrivals[1:], strict=False)
        if before >= window.begin
    ]
    return {
        "requests": len(asked),
        "requests_per_second": len(asked) / (window.seconds - TAIL),
        "refused": sum(not each.arrivals and each.refusals > 0 for each in asked) / max(1, len(asked)),
        "refused_once": sum(each.refusals > 0 for each in asked) / max(1, len(asked)),
        "first_token": {name: percentile(answered, share) for name, share in _SHARES.items()},
        "between_tokens": {name: percentile(gaps, share) for name, share in _SHARES.items()},
    }


_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def tokens_in(seen: Sequence[Watched], window: Window) -> int:
    """Tokens that clients got within the window."""
    return sum(window.begin <= at < window.end for each in seen for at in each.arrivals)


def fairness(seen: Sequence[Watched], window: Window) -> dict[str, Any]:
    """How evenly the keys are served: Jain's index of what each got, relative to its max-min fair share.

    What a key asked for is what it got, and the answers of requests that got no token. Its fair share is that, or an
    equal part of what was given if that is less. 1: every key got its share; 1/n: one of n keys got all. Also how long
    the heavy key and the others waited. Source: Jain, Chiu and Hawe, "A Quantitative Measure of Fairness and
    Discrimination", DEC TR-301, 1984.
    """
    got: dict[str, float] = defaultdict(float)
    missed: dict[str, float] = defaultdict(float)
    for each in seen:
        got[each.key] += sum(window.begin <= at < window.end for at in each.arrivals)
        if not each.arrivals and window.begin <= each.sent < window.end - TAIL:
            missed[each.key] += each.wanted_tokens
    shares = max_min_shares({key: got[key] + missed[key] for key in got}, sum(got.values()))
    relative = {key: got[key] / share for key, share in shares.items() if share}
    others = [value for key, value in relative.items() if key != "heavy"]
    return {
        "jain": jain(list(relative.values())),
        "heavy": relative.get("heavy"),
        "least_of_others": min(others, default=None),
        "heavy_waits": waits([each for each in seen if each.key == "heavy"], window),
        "others_wait": waits([each for each in seen if each.key != "heavy"], window),
    }


def max_min_shares(asked: Mapping[str, float], given: float) -> dict[str, float]:
    """What each key would get if `given` were divided max-min fairly: nobody gets more than it asks for."""
    shares: dict[str, float] = {}
    for number, key in enumerate(sorted(asked, key=asked.__getitem__)):
        shares[key] = min(asked[key], (given - sum(shares.values())) / (len(asked) - number))
    return shares


def jain(values: Sequence[float]) -> float | None:
    """Jain's index of fairness; None without values that are above 0."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else None
