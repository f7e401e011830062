"""Marks what people wrote in a prompt's messages, so that in the rendered prompt it differs from the template's text.

A sentinel, a noncharacter that occurs nowhere in the messages or the template, goes after every letter that a control
token can begin with, and before a text that could be the rest of one. Whatever a user typed, alone or together with the
template's text on either side, then reads as no control token. The sentinel is not blank and comes after leading
blanks, so a template's `trim` works as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from antiphon.errors import InvalidRequest
from antiphon.text.control import ControlTokens

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
# Unicode's noncharacters: no text for interchange holds them, and if one does, another is taken.
NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
_PART = 64 << 10  # characters
MAX_DEPTH = 64  # of lists and mappings in a message or tool


@dataclass(frozen=True, slots=True)
class Marker:
    """Puts sentinels into text from outside, and takes them out again."""

    sentinel: str
    control: ControlTokens

    def mark_text(self, text: str) -> str:
        body = text.lstrip()
        if self.control.may_continue(body):
            text = text[: len(text) - len(body)] + self.sentinel + body
        for letter in self.control.first_letters:
            text = _replaced(text, letter, letter + self.sentinel)
        # Templates look for this tag, whether it is a token or not. Where it is one, it was marked just now.
        return text.replace(THINK_CLOSE, THINK_CLOSE[0] + self.sentinel + THINK_CLOSE[1:])

    def mark(self, value: Any) -> Any:  # noqa: ANN401
        """Any JSON value with all its texts marked. A key is marked only where it could hold a control token."""
        if isinstance(value, str):
            return self.mark_text(value)
        if isinstance(value, Mapping):
            return {self._mark_key(key): self.mark(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.mark(item) for item in value]
        return value

    def unmark(self, text: str) -> str:
        return _replaced(text, self.sentinel, "")

    def _mark_key(self, key: str) -> str:
        return self.mark_text(key) if self.control.first_letters.intersection(key) else key


def _replaced(text: str, letter: str, by: str) -> str:
    """`text` with all occurrences of one letter replaced, a part at a time: a call holds Python's lock to its end."""
    if len(text) <= _PART:
        return text.replace(letter, by)
    return "".join([text[start : start + _PART].replace(letter, by) for start in range(0, len(text), _PART)])


def texts_in(value: Any, depth: int = 0) -> list[str]:  # noqa: ANN401
    """Every text in a JSON value, keys included. Raises InvalidRequest for one that is nested too deeply."""
    if depth > MAX_DEPTH:
        raise InvalidRequest(f"A message or tool is nested deeper than {MAX_DEPTH} levels.", param="messages")
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for pair in value.items() for item in pair for text in texts_in(item, depth + 1)]
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in texts_in(item, depth + 1)]
    return []


def free_noncharacters(values: Any, count: int) -> list[str]:  # noqa: ANN401
    """As many that occur nowhere in `values`. Raises InvalidRequest where there are fewer."""
    texts = texts_in(values)  # a search for one character takes a tenth of the time that a set of all takes
    free = list(islice((each for each in NONCHARACTERS if not any(each in text for text in texts)), count))
    if len(free) < count:
        raise InvalidRequest("The messages use too many of Unicode's noncharacters U+FDD0 to U+FDEF.", param="messages")
    return free
