"""Finds control tokens in text, for prompts in which they are meant: rendered templates and raw completions.

One compiled expression, built from a tree of the tokens' letters so that a text full of near misses still costs a
constant per character. Of several tokens that begin at the same place the longest wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any


class ControlTokens:
    """The tokens that plain text never becomes, by their text."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self.ids = dict(ids)
        self._expression = re.compile(_expression(self.ids)) if self.ids else None
        self.first_letters = frozenset(text[0] for text in self.ids)
        self._ends: dict[str, set[str]] = {}  # every proper end of a control token, by its first letter
        for text in self.ids:
            for start in range(1, len(text)):
                self._ends.setdefault(text[start], set()).add(text[start:])

    def split(self, text: str) -> Iterator[str | int]:
        """Pieces of plain text (never empty) and ids of control tokens, in the order of `text`."""
        position = 0
        for match in self._expression.finditer(text) if self._expression else ():
            if match.start() > position:
                yield text[position : match.start()]
            yield self.ids[match.group()]
            position = match.end()
        if position < len(text):
            yield text[position:]

    def may_continue(self, text: str) -> bool:
        """Whether `text`, put after some other text, could go on with a control token begun there."""
        return any(text.startswith(end) or end.startswith(text) for end in self._ends.get(text[:1], ()))


def _expression(texts: Mapping[str, int]) -> str:
    """A regular expression for exactly these texts, longest first."""
    root: dict[str, Any] = {}
    for text in texts:
        node = root
        for letter in text:
            node = node.setdefault(letter, {})
        node[""] = {}  # a token ends here
    return _branch(root)


def _branch(node: dict[str, Any]) -> str:
    """The expression of a tree's branches; a run of single branches is written out without recursing."""
    choices = []
    for letter, below in node.items():
        if letter == "":
            continue
        run = [re.escape(letter)]
        while len(below) == 1 and "" not in below:
            ((letter, below),) = below.items()
            run.append(re.escape(letter))
        choices.append("".join(run) + (_branch(below) if below != {"": {}} else ""))
    body = f"(?:{'|'.join(choices)})"
    return f"{body}?" if "" in node else body
