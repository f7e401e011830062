"""Guesses of the tokens that come next, from what was said after the same words before.

A draft costs no model. It comes from the sequence's own text, prompt and answer, or from answers to recent requests of
the same cache salt, which may know of each other anyway. The longest run of last tokens that was seen before decides,
and of its places the last one. A wrong guess costs time, never correctness: the scheduler takes a drafted token only
where the model draws the same. (Saxena, "Prompt Lookup Decoding", 2023.)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from typing import NamedTuple

RUNS = (8, 4, 2)  # lengths of the runs that are looked up, the longest first
_MAX_RECENT_TOKENS = 1 << 16  # of the answers that are kept, of all salts
_MAX_OWN_TOKENS = 1 << 16  # of running sequences' own texts that are indexed, at some 400 bytes each
_INDEXED_AT_ONCE = 4096  # tokens: some milliseconds


class Text:
    """A text that grows at its end, and where each run of its tokens was last followed by another token."""

    def __init__(self) -> None:
        self.token_ids: SequenceOf[int] = ()
        self._places: dict[tuple[int, ...], int] = {}  # after the last occurrence of a run
        self.num_indexed = 0  # tokens, from the start

    def grow(self, token_ids: SequenceOf[int]) -> None:
        """Index what was added; `token_ids` is the whole text. A long text takes several calls."""
        self.token_ids = token_ids
        end = min(len(token_ids), self.num_indexed + _INDEXED_AT_ONCE)
        for place in range(max(1, self.num_indexed), end):
            for run in RUNS:
                if run <= place:
                    self._places[tuple(token_ids[place - run : place])] = place
        self.num_indexed = end

    def find(self, last: SequenceOf[int], run: int) -> int | None:
        """Where the text went on after the last `run` tokens of `last`."""
        return self._places.get(tuple(last[-run:])) if len(last) >= run else None

    @property
    def runs(self) -> Iterator[tuple[int, ...]]:
        yield from self._places


class RecentAnswers:
    """The last answers of one salt, together at most `_MAX_RECENT_TOKENS` long."""

    def __init__(self, max_tokens: int = _MAX_RECENT_TOKENS) -> None:
        self._max_tokens = max_tokens
        self._texts: OrderedDict[int, Text] = OrderedDict()
        self._text_of: dict[tuple[int, ...], int] = {}  # the last text with a run
        self._num_added = 0
        self.num_tokens = 0

    def add(self, token_ids: SequenceOf[int]) -> None:
        """Keep an answer, and forget the oldest ones where there are too many."""
        token_ids = token_ids[: self._max_tokens]
        text = Text()
        while text.num_indexed < len(token_ids):
            text.grow(token_ids)
        self._texts[self._num_added] = text
        self._text_of.update(dict.fromkeys(text.runs, self._num_added))
        self._num_added += 1
        self.num_tokens += len(token_ids)
        while self.num_tokens > self._max_tokens:
            self._forget_oldest()

    def find(self, last: SequenceOf[int], run: int) -> tuple[SequenceOf[int], int] | None:
        """A text, and where it went on after the last `run` tokens of `last`."""
        number = self._text_of.get(tuple(last[-run:])) if len(last) >= run else None
        if number is None:
            return None
        text = self._texts[number]
        place = text.find(last, run)
        assert place is not None, "the index names a text without the run"
        return text.token_ids, place

    def _forget_oldest(self) -> None:
        number, text = self._texts.popitem(last=False)
        self.num_tokens -= len(text.token_ids)
        for run in text.runs:
            if self._text_of.get(run) == number:
                del self._text_of[run]


class Guess(NamedTuple):
    """Tokens that may come next, one after the other."""

    run: int  # how many last tokens were seen before; 0: no guess
    token_ids: Iterator[int]


class Memory:
    """What may be drafted from: of each running sequence its own text, and the answers of its salt."""

    def __init__(self, max_tokens: int = _MAX_RECENT_TOKENS, max_salts: int = 64) -> None:
        self._max_tokens = max_tokens
        self._max_salts = max_salts
        self._own: dict[int, Text] = {}
        self.num_own_tokens = 0  # indexed, of all running sequences
        self._recent: OrderedDict[str, RecentAnswers] = OrderedDict()

    def guess(self, sequence_id: int, salt: str, token_ids: SequenceOf[int]) -> Guess:
        """What may follow `token_ids`, the whole text of a sequence."""
        own = self._own.setdefault(sequence_id, Text())
        if self.num_own_tokens < _MAX_OWN_TOKENS:
            self.num_own_tokens -= own.num_indexed
            own.grow(token_ids)
            self.num_own_tokens += own.num_indexed
        recent = self._recent.get(salt)
        last = token_ids[-RUNS[0] :]
        for run in RUNS:
            if (place := own.find(last, run)) is not None:
                return Guess(run, _copied(token_ids, place))
            if recent and (found := recent.find(last, run)):
                text, place = found
                return Guess(run, iter(text[place:]))
        return Guess(0, iter(()))

    def finish(self, sequence_id: int, salt: str, answer: SequenceOf[int]) -> None:
        """A sequence ended: others may draft from its answer."""
        if own := self._own.pop(sequence_id, None):
            self.num_own_tokens -= own.num_indexed
        if len(answer) <= RUNS[-1]:
            return
        share = self._max_tokens // (4 if salt else 1)  # so that no salt displaces all others
        recent = self._recent.setdefault(salt, RecentAnswers(share))
        recent.add(answer)
        self._recent.move_to_end(salt)
        while len(self._recent) > self._max_salts or self._num_tokens > self._max_tokens:
            if len(self._recent) == 1:
                break
            self._recent.popitem(last=False)

    @property
    def _num_tokens(self) -> int:
        return sum(recent.num_tokens for recent in self._recent.values())


def _copied(token_ids: SequenceOf[int], place: int) -> Iterator[int]:
    """The text from a place on, and on beyond its end, as if it went on as it repeats itself (Ziv and Lempel, 1977)."""
    copied: list[int] = []
    while True:
        index = place + len(copied)
        token_id = token_ids[index] if index < len(token_ids) else copied[index - len(token_ids)]
        copied.append(token_id)
        yield token_id
