"""Majority vote: of several choices, the boxed answer that most of them agree on.

Asking a reasoning model several times and taking the most frequent result is the cheapest way to a better one; the
choices share the prompt's work. What is compared is text: `1/2` and `0.5` are two answers.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from antiphon.text.boxed import boxed_answer, normalized


class Vote(msgspec.Struct):
    """What the choices of a request agree on."""

    answer: str | None
    count: int
    counts: dict[str, int]


def vote(contents: Iterable[str]) -> Vote:
    """Count the boxed answers of all choices. Blanks are no difference; among equals the earliest wins.

    A choice without a box, or with an empty one, has no vote.
    """
    spellings: dict[str, str] = {}  # answer without blanks → as it was written first
    counts: dict[str, int] = {}
    for content in contents:
        answer = normalized(boxed_answer(content) or "")
        if answer:
            spelling = spellings.setdefault(answer.replace(" ", ""), answer)
            counts[spelling] = counts.get(spelling, 0) + 1
    winner = max(counts, key=lambda answer: counts[answer], default=None)  # the first of those with most
    return Vote(winner, counts[winner] if winner is not None else 0, counts)
