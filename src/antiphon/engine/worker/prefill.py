"""Divides the tokens of a step among prompts, so that a short one does not wait behind a long one.

Three quarters go to the prompts in their order, so each long prompt reaches its end; a quarter goes to the shortest
remaining ones. What one part leaves, the other gets, and a prompt that is alone gets everything. Quarters of small
steps add up, so that even a step of one token is divided fairly over time. Knows numbers only: no sequences, no blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

_SHORTEST_SHARE = 0.25  # of each step's prefill tokens


class PrefillSharing:
    """Keeps what small steps owe to the shortest prompts."""

    def __init__(self) -> None:
        self._owed = 0.0  # tokens; below 1 between steps

    def divide(self, num_tokens: int, gaps: Sequence[int], caps: Sequence[int], may_jump: Sequence[bool]) -> list[int]:
        """How many tokens each prompt computes, in their order.

        `gaps`: tokens each still has to compute; `caps`: how many of them it may compute in this step; `may_jump`:
        whether it may have a part of the quarter.
        """
        counts = [0] * len(gaps)
        part = self._shortest_part(num_tokens, len(gaps))
        jumping = [index for index, may in enumerate(may_jump) if may]
        for index in sorted(jumping, key=lambda each: gaps[each]):  # of equals, the first in order
            counts[index] = min(part, caps[index])
            part -= counts[index]
        left = num_tokens - sum(counts)
        for index, cap in enumerate(caps):
            more = min(left, cap - counts[index])
            counts[index] += more
            left -= more
        return counts

    def _shortest_part(self, num_tokens: int, num_prompts: int) -> int:
        if num_prompts < 2:
            self._owed = 0.0
            return 0
        self._owed += num_tokens * _SHORTEST_SHARE
        part = int(self._owed)
        self._owed -= part
        return part
