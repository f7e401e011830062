"""Finds the result that a mathematical answer puts in a box, and says when two of them are the same.

`\\boxed{…}` is how reasoning models are asked to mark their result. One pass over the text, whatever it is: the braces
inside a box must balance, and one that is written `\\{` does not count.
"""

from __future__ import annotations

import re

_SIGN = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)


def boxed_answer(text: str) -> str | None:
    """What stands in the box that was opened last, of those that were closed; None where there is none."""
    opened: list[int | None] = []  # where the content of each box begins that is open; None for any other brace
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
    """An answer without what does not matter: dollar signs around it, dots at its end, blanks in a row."""
    return " ".join(answer.split()).lstrip(" $").rstrip(" $.")
