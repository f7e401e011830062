"""Majority vote: the boxed answer that most of a request's choices agree on.

Asking a reasoning model several times and taking the most frequent result is the cheapest way to a better result, since
the choices share the computation of the prompt. Answers are compared as text: `1/2` and `0.5` are different.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from antiphon.text.boxed import boxed_answer, normalized


class Vote(msgspec.Struct):
    """The result of a vote."""

    answer: str | None
    count: int
    counts: dict[str, int]


def vote(contents: Iterable[str]) -> Vote:
    """Count the boxed answers of all choices. Spaces are ignored, and in a tie the earliest answer wins.

    A choice without a box, or with an empty one, does not vote.
    """
    spellings: dict[str, str] = {}  # answer without spaces → as it was written first
    counts: dict[str, int] = {}
    for content in contents:
        answer = normalized(boxed_answer(content) or "")
        if answer:
            spelling = spellings.setdefault(answer.replace(" ", ""), answer)
            counts[spelling] = counts.get(spelling, 0) + 1
    winner = max(counts, key=lambda answer: counts[answer], default=None)  # the first one, in a tie
    return Vote(winner, counts[winner] if winner is not None else 0, counts)
