"""How long answers are: an estimate of the tokens that an unfinished answer still needs.

Owns the lengths of recent thoughts and answers. They are kept apart, since a thought is often ten times as long as the
answer after it, and how much is left depends mostly on whether it has ended. A request without a thought is a third
kind. Each kind is a `LifeTable`. This module knows nothing of requests or time.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

from antiphon.engine.requests.answer_parts import AnswerParts

_LONGEST = 1 << 20  # tokens
_GROWTH = 1.2  # of the buckets
_MEMORY = 0.995  # weight of the past, per text
_PRIOR_WEIGHT = 1.0  # texts
_PRIOR_MEDIAN = 64  # tokens


def _edges() -> tuple[int, ...]:
    edges = [0, 1]
    while edges[-1] < _LONGEST:
        edges.append(max(edges[-1] + 1, int(edges[-1] * _GROWTH)))
    return tuple(edges)


_EDGES = _edges()
_PRIOR = tuple(1 - (a + _PRIOR_MEDIAN) / (b + _PRIOR_MEDIAN) for a, b in pairwise(_EDGES))


class LifeTable:
    """Estimates how long texts of one kind are, from those that ended.

    Keeps their lengths as counts in buckets that grow geometrically; old ones fade. A text that was cut by its limit or
    left by its client only shows that it would have been at least so long, so the share of texts that reach a length is
    estimated as in a life table (the actuarial estimator, a binned Kaplan-Meier). Where nothing was observed, a weak
    prior decides, with the tail of a Lomax distribution: the longer a text already is, the longer it is expected to go
    on.
    """

    def __init__(self) -> None:
        self._ended = [0.0] * len(_PRIOR)  # texts that ended by themselves in the bucket
        self._cut = [0.0] * len(_PRIOR)  # texts that were cut there
        self._survival = [1.0]  # at each edge: the share of texts that are longer
        self._area: list[float] = []  # its integral from 0 to each edge, in tokens; empty: to be computed

    @property
    def num_observed(self) -> float:
        """How many texts were observed; old ones count less."""
        return sum(self._ended) + sum(self._cut)

    def observe(self, num_tokens: int, *, is_complete: bool) -> None:
        """Take the length of a text. `is_complete`: it ended by itself, and was not cut."""
        self._ended = [count * _MEMORY for count in self._ended]
        self._cut = [count * _MEMORY for count in self._cut]
        (self._ended if is_complete else self._cut)[_bucket(num_tokens)] += 1.0
        self._area = []

    def remaining(self, num_tokens: float, limit: float) -> float:
        """The mean number of tokens that a text of so many tokens still gets if it is cut at `limit`.

        At least 1 where the limit allows that.
        """
        if limit <= num_tokens:
            return 0.0
        survival, area = self._at(num_tokens)
        return min(max(1.0, (self._at(limit)[1] - area) / survival), limit - num_tokens)

    def _at(self, num_tokens: float) -> tuple[float, float]:
        """Survival and area at a length; survival is linear within a bucket."""
        if not self._area:
            self._integrate()
        length = min(num_tokens, float(_LONGEST))
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


class AnswerLengths:
    """Learns how long thoughts and answers are."""

    def __init__(self) -> None:
        self.thoughts = LifeTable()
        self.answers = LifeTable()  # after a thought
        self.plain = LifeTable()  # answers without a thought

    def observe(self, parts: AnswerParts, *, is_complete: bool) -> None:
        """Learn from a request that ended. `is_complete`: the model ended it, not a limit or the client."""
        if not parts.thinks:
            self.plain.observe(parts.num_answer, is_complete=is_complete)
        elif parts.is_thinking:
            self.thoughts.observe(parts.num_thought, is_complete=is_complete)
        else:
            self.thoughts.observe(parts.num_thought, is_complete=not parts.was_cut)
            self.answers.observe(parts.num_answer, is_complete=is_complete)

    def remaining(self, parts: AnswerParts, limit: int) -> float:
        """The mean number of tokens that a request still gets if it may have `limit` tokens in all.

        At least 1, as long as the limit allows one.
        """
        left = float(max(0, limit - parts.num_tokens))
        if not parts.thinks:
            return self.plain.remaining(parts.num_answer, parts.num_answer + left)
        if not parts.is_thinking:
            return self.answers.remaining(parts.num_answer, parts.num_answer + left)
        thought = self.thoughts.remaining(parts.num_thought, min(parts.budget, parts.num_thought + left))
        return thought + self.answers.remaining(0, left - thought)

    def typical(self, limit: float) -> float:
        """The mean number of tokens of a request of which only the limit is known: of the kind seen most often."""
        if self.plain.num_observed >= self.thoughts.num_observed:
            return self.plain.remaining(0, limit)
        thought = self.thoughts.remaining(0, limit)
        return thought + self.answers.remaining(0, limit - thought)


def _bucket(num_tokens: float) -> int:
    return min(bisect_right(_EDGES, num_tokens) - 1, len(_PRIOR) - 1)
