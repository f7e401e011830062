"""Finds control tokens in text, for prompts in which they are meant: rendered templates and raw completions.

The tokens' texts become one compiled expression, a tree of their letters, so that a text full of near misses still
costs a constant per character. Of several tokens that begin at the same place the longest wins.

What counts as a match, and what it takes along, is as in the `tokenizers` library (AddedVocabulary): a token that is a
`single_word` must not touch letters, one with `lstrip` or `rstrip` takes the blanks before or after it, and tokens that
are `normalized` are looked for in what the others leave.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from antiphon.errors import CheckpointError

MAX_LETTERS = 256  # of a control token's text; the longest in use have about 64
MAX_ALL_LETTERS = 1 << 20  # of all texts together, common beginnings counted once
MAX_NESTING = 96  # tokens that each begin with another; runs of blanks are the deepest in use
_WINDOW = 64 << 10  # characters
_END = "\0"
# Unicode's White_Space. Python's own idea of blanks has four separators more.
_BLANKS = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*")
_JOINERS = "\u200c\u200d"
# Letters by Unicode's property, though symbols by their category.
_CIRCLED = re.compile("[\u24b6-\u24e9\U0001f130-\U0001f149\U0001f150-\U0001f169\U0001f170-\U0001f189]")


@dataclass(frozen=True, slots=True)
class Matching:
    """Where a control token is found, in the `tokenizers` library's words."""

    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False


PLAIN = Matching()

_WINDOW = 64 << 10  # characters


class ControlTokens:
    """The tokens that plain text never becomes, by their text.

    Raises CheckpointError for texts that are too long, or too many, to be looked for.
    """

    def __init__(self, ids: Mapping[str, int], matching: Mapping[str, Matching] | None = None) -> None:
        """`matching` of tokens that are not simply found wherever their text occurs."""
        self.ids = dict(ids)
        self.first_letters = frozenset(text[0] for text in self.ids)
        self._matching = dict(matching or {})
        self._longest = max(map(len, self.ids), default=0)
        for text in self.ids:
            if len(text) > MAX_LETTERS:
                raise CheckpointError(
                    f"the control token {text[:40]!r}… has {len(text)} letters; the most is {MAX_LETTERS}"
                )
        later = {text for text in self.ids if self._matching.get(text, PLAIN).normalized}
        passes = (self.ids.keys() - later, later)
        self._expressions = [re.compile(_expression(sorted(texts))) for texts in passes if texts]
        # Every control token without its first letter, for `may_continue`.
        self._rests = _END.join([*(text[1:] for text in self.ids), ""])

    def split(self, text: str) -> Iterator[str | int]:
        """Pieces of plain text (never empty) and ids of control tokens, in the order of `text`.

        Blanks that a token takes along are in no piece.
        """
        pieces: Iterator[str | int] = iter([text] if text else [])
        for expression in self._expressions:
            pieces = self._split_each(pieces, expression)
        return pieces

    def may_continue(self, text: str) -> bool:
        """Whether `text`, put after other text, could complete or continue a control token that begins in the other."""
        for length in range(1, min(len(text), self._longest) + 1):
            beginning = text[:length]
            if beginning not in self._rests:
                return False
            if beginning + _END in self._rests:
                return True
        return bool(text)

    def _split_each(self, pieces: Iterator[str | int], expression: re.Pattern[str]) -> Iterator[str | int]:
        for piece in pieces:
            if isinstance(piece, int):
                yield piece
            else:
                yield from self._split(piece, expression)

    def _split(self, text: str, expression: re.Pattern[str]) -> Iterator[str | int]:
        position = 0
        for match in self._matches(text, expression):
            start, end = match.span()
            matching = self._matching.get(match.group(), PLAIN)
            if matching is not PLAIN:
                if matching.single_word and (_is_word(text[start - 1 : start]) or _is_word(text[end : end + 1])):
                    continue
                if matching.lstrip:
                    start = max(position, _blanks_before(text, start))
                if matching.rstrip:
                    end = _end_of_blanks(text, end)
            if position < start:
                yield text[position:start]
            yield self.ids[match.group()]
            position = end
        if position < len(text):
            yield text[position:]

    def _matches(self, text: str, expression: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """Every control token of `text`, found a window at a time: one search holds Python's lock to its end."""
        begin = 0
        while begin < len(text):
            # A token may begin in the window and end after it.
            match = expression.search(text, begin, begin + _WINDOW + self._longest)
            if match is not None and match.start() < begin + _WINDOW:
                yield match
                begin = match.end()
            else:
                begin += _WINDOW


def _is_word(character: str) -> bool:
    """Whether it is one of Unicode's word characters (UTS 18); no character is none."""
    if not character:
        return False
    category = unicodedata.category(character)
    return (
        category[0] in "LM"
        or category in ("Nd", "Nl", "Pc")
        or character in _JOINERS
        or bool(_CIRCLED.match(character))
    )


def _blanks_before(text: str, end: int) -> int:
    """Where the blanks that end at `end` begin."""
    while end > 0 and _end_of_blanks(text, end - 1) > end - 1:
        end -= 1
    return end


def _end_of_blanks(text: str, start: int) -> int:
    match = _BLANKS.match(text, start)
    assert match is not None  # it matches nothing, too
    return match.end()


def _expression(texts: Sequence[str]) -> str:
    """A regular expression for exactly these texts, sorted, the longest first."""
    letters = 0

    def branch(first: int, last: int, at: int, depth: int) -> str:
        """For texts[first:last], which share their first `at` letters."""
        nonlocal letters
        if depth > MAX_NESTING:
            raise CheckpointError(f"more than {MAX_NESTING} control tokens begin with each other, as {texts[first]!r}")
        ends_here = len(texts[first]) == at
        choices, start = [], first + ends_here
        while start < last:
            end = start + 1
            while end < last and texts[end][at] == texts[start][at]:
                end += 1
            shared = _shared(texts[start], texts[end - 1])
            letters += shared - at
            if letters > MAX_ALL_LETTERS:
                raise CheckpointError(f"the control tokens have more than {MAX_ALL_LETTERS} letters in all")
            below = "" if end == start + 1 else branch(start, end, shared, depth + 1)
            choices.append(re.escape(texts[start][at:shared]) + below)
            start = end
        body = f"(?:{'|'.join(choices)})"
        return f"{body}?" if ends_here else body

    return branch(0, len(texts), 0, 0)


def _shared(one: str, other: str) -> int:
    """How many letters they begin with in common."""
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return at
    return min(len(one), len(other))
