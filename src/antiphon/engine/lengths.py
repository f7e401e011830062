"""How long answers are: an estimate of the tokens that an unfinished answer will still need.

Owns the lengths of recent answers, as counts in buckets that grow geometrically; old answers fade. An answer that was
cut by its limit or left by its client only shows that it would have been at least so long, so the share of answers that
reach a length is estimated as in a life table (the actuarial estimator, a binned Kaplan-Meier). Where nothing was
observed, a weak prior decides, whose tail is that of a Lomax distribution: the longer an answer already is, the longer
it is expected to go on. This module knows nothing of requests or time.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

_LONGEST = 1 << 20  # tokens
_GROWTH = 1.2  # of the buckets
_MEMORY = 0.995  # weight of the past, per answer
_PRIOR_WEIGHT = 1.0  # answers
_PRIOR_MEDIAN = 64  # tokens


def _edges() -> tuple[int, ...]:
    edges = [0, 1]
    while edges[-1] < _LONGEST:
        edges.append(max(edges[-1] + 1, int(edges[-1] * _GROWTH)))
    return tuple(edges)


_EDGES = _edges()
_PRIOR = tuple(1 - (a + _PRIOR_MEDIAN) / (b + _PRIOR_MEDIAN) for a, b in pairwise(_EDGES))


class AnswerLengths:
    """Learns from the answers that ended."""

    def __init__(self) -> None:
        self._ended = [0.0] * len(_PRIOR)  # answers whose own end is in the bucket
        self._cut = [0.0] * len(_PRIOR)  # answers that were cut there
        self._survival = [1.0]  # at each edge: the share of answers that are longer
        self._area: list[float] = []  # its integral from 0 to each edge, in tokens; empty: to be computed

    def observe(self, num_tokens: int, *, is_complete: bool) -> None:
        """Take an answer's length. `is_complete`: it ended by itself, and was not cut."""
        self._ended = [count * _MEMORY for count in self._ended]
        self._cut = [count * _MEMORY for count in self._cut]
        (self._ended if is_complete else self._cut)[_bucket(num_tokens)] += 1.0
        self._area = []

    def remaining(self, num_tokens: int, limit: int) -> float:
        """The mean number of tokens that an answer of so many tokens still gets if it is cut at `limit`.

        At least 1, as long as the limit allows one.
        """
        if limit <= num_tokens:
            return 0.0
        survival, area = self._at(num_tokens)
        return min(max(1.0, (self._at(limit)[1] - area) / survival), limit - num_tokens)

    def _at(self, num_tokens: int) -> tuple[float, float]:
        """Survival and area at a length; survival is linear within a bucket."""
        if not self._area:
            self._integrate()
        length = min(num_tokens, _LONGEST)
        at = _bucket(length)
        width, into = _EDGES[at + 1] - _EDGES[at], length - _EDGES[at]
        survival = self._survival[at] + (self._survival[at + 1] - self._survival[at]) * into / width
        return survival, self._area[at] + into * (self._survival[at] + survival) / 2

    def _integrate(self) -> None:
        reached = sum(self._ended) + sum(self._cut)
        self._survival, self._area = [1.0], [0.0]
        for at, prior in enumerate(_PRIOR):
            at_risk = _PRIOR_WEIGHT + max(0.0, reached - self._cut[at] / 2)
            lost = (_PRIOR_WEIGHT * prior + self._ended[at]) / at_risk
            before = self._survival[-1]
            self._survival.append(before * (1 - min(lost, 1.0)))
            self._area.append(self._area[-1] + (_EDGES[at + 1] - _EDGES[at]) * (before + self._survival[-1]) / 2)
            reached -= self._ended[at] + self._cut[at]


def _bucket(num_tokens: int) -> int:
    return min(bisect_right(_EDGES, num_tokens) - 1, len(_PRIOR) - 1)
