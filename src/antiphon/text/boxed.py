"""Finds the result that a mathematical answer puts in a box, and normalizes results so that they can be compared.

Reasoning models are asked to mark their result with `\\boxed{…}`. One pass over the text: the braces inside a box must
balance, and an escaped one, `\\{`, does not count.
"""

from __future__ import annotations

import re

_SIGN = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)


def boxed_answer(text: str) -> str | None:
    """The content of the box that was opened last, among those that were closed; None if there is none."""
    opened: list[int | None] = []  # where the content of each open box begins; None for any other brace
    last, answer = -1, None
    for sign in _SIGN.finditer(text):
        if sign.group().startswith("\\boxed"):
            opened.append(sign.end())
        elif sign.group() == "{":
            opened.append(None)
        elif sign.group() == "}" and opened:
            start = opened.pop()
            if start is not None and start > last:
                last, answer = start, text[start : sign.start()]
    return answer


def normalized(answer: str) -> str:
    """An answer without dollar signs around it, dots at its end and repeated blanks."""
    return " ".join(answer.split()).lstrip(" $").rstrip(" $.")
