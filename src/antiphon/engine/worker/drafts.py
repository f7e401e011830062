"""Guesses which tokens come next, from what followed the same tokens before.

A guess comes from the sequence's own text, or from recent answers with the same cache salt. The longest run of last
tokens that was seen before decides, and of its places the last one (Saxena, "Prompt Lookup Decoding", 2023). There is
no draft model. A wrong guess costs time but never changes an answer: the scheduler takes a drafted token only where
the model draws the same one.

Owns the texts, their indexes and the bound on both. An index is a hash table of places that keeps no keys: runs may
share a slot, so each place is compared with the run before it is used.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from operator import mul
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RUNS = (8, 4, 2, 1)  # lengths of the runs that are looked up, the longest first
LONGEST = 64  # a longer match is not measured
BYTES_PER_TOKEN = 52  # of a text at most: its token, and 12 slots of its index just after that was doubled
MAX_RECENT_TOKENS = 1 << 16  # of the answers that are kept, with all salts together
MAX_OWN_TOKENS = 1 << 17  # of running sequences' texts that are indexed, all together
_INDEXED_AT_ONCE = 8192  # tokens of a text, some 3 ms; the rest is indexed in the next steps
_FEW = 24  # tokens; so many and fewer are indexed without numpy
_LEAST_SLOTS = 1 << 10
_SLOTS_PER_RUN = 1.5
_WORD = (1 << 64) - 1


def _multipliers() -> list[int]:
    """Odd numbers to multiply the tokens of a run by: steps of SplitMix64 (Steele, Lea and Flood, 2014)."""
    found, state = [], 0
    for _ in range(RUNS[0] + len(RUNS)):
        state = (state + 0x9E3779B97F4A7C15) & _WORD
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        found.append((mixed ^ (mixed >> 27)) | 1)
    return found


_MULTIPLIERS = _multipliers()
_OFFSETS = dict(zip(RUNS, _MULTIPLIERS[RUNS[0] :], strict=True))  # so that runs of different lengths differ


class Index:
    """Where each run of tokens was last followed by another token, in a text that only grows."""

    def __init__(self) -> None:
        self.num_indexed = 0  # tokens, from the start of the text
        self._resize(_LEAST_SLOTS)

    @property
    def num_bytes(self) -> int:
        """Size of the table."""
        return self._slots.itemsize * len(self._slots)

    def grow(self, token_ids: SequenceOf[int]) -> None:
        """Index what was added; `token_ids` is the whole text. A long text takes several calls."""
        start, end = self.num_indexed, min(len(token_ids), self.num_indexed + _INDEXED_AT_ONCE)
        if end * len(RUNS) * _SLOTS_PER_RUN > len(self._slots):
            self._resize(2 * len(self._slots))
            while end * len(RUNS) * _SLOTS_PER_RUN > len(self._slots):
                self._resize(2 * len(self._slots))
            self._add_many(token_ids, 0, start)
        if end - start > _FEW:
            self._add_many(token_ids, start, end)
        else:
            self._add_few(token_ids, start, end)
        self.num_indexed = end

    def find(self, token_ids: SequenceOf[int], last: SequenceOf[int], run: int) -> int:
        """A place of the text before which its last `run` tokens may have come; 0: none."""
        return self._slots[self._slot(last[-run:], run)] if len(last) >= run else 0

    def _resize(self, num_slots: int) -> None:
        self._slots: array[int] = array(
            "i", bytes(4 * num_slots)
        )  # 0: empty, since no run comes before the first token
        self._shift = 65 - num_slots.bit_length()

    def _slot(self, tokens: SequenceOf[int], run: int) -> int:
        mixed: int = sum(map(mul, tokens, _MULTIPLIERS)) + _OFFSETS[run]
        return (mixed & _WORD) >> self._shift

    def _add_few(self, token_ids: SequenceOf[int], start: int, end: int) -> None:
        for place in range(max(1, start), end):
            for run in RUNS:
                if run <= place:
                    self._slots[self._slot(token_ids[place - run : place], run)] = place

    def _add_many(self, token_ids: SequenceOf[int], start: int, end: int) -> None:
        """`_add_few`, for all places at once: about a hundred times as fast."""
        first = max(0, start - RUNS[0])
        tokens = np.asarray(token_ids[first:end], np.uint64)
        slots = np.frombuffer(self._slots, np.int32)
        for run in RUNS:
            places = np.arange(max(start, run), end, dtype=np.int32)
            if len(places):
                slots[self._slots_of(tokens, places - first, run)] = places  # of equal slots, the last place stays

    def _slots_of(self, tokens: NDArray[np.uint64], places: NDArray[np.int32], run: int) -> NDArray[np.uint64]:
        sums = np.full(len(places), _OFFSETS[run], np.uint64)
        for number in range(run):
            sums += tokens[places - run + number] * np.uint64(_MULTIPLIERS[number])
        return sums >> np.uint64(self._shift)


class Text:
    """A text and its index."""

    def __init__(self, token_ids: SequenceOf[int] = ()) -> None:
        self.token_ids = token_ids
        self.index = Index()

    def grow(self, token_ids: SequenceOf[int]) -> None:
        """Replace the text by a longer one with the same start, and index a part of what is new."""
        self.token_ids = token_ids
        self.index.grow(token_ids)

    def find(self, last: SequenceOf[int], run: int) -> tuple[int, int]:
        """Where the text went on after the last `run` tokens of `last`, and how many before that place are equal.

        Both are 0 where it never did.
        """
        place = self.index.find(self.token_ids, last, run)
        if not place or place >= len(self.token_ids):
            return 0, 0
        length = _num_equal(self.token_ids, place, last)
        return (place, length) if length >= run else (0, 0)


class RecentAnswers:
    """The last answers with one salt, one after the other, together at most `max_tokens` long."""

    def __init__(self, max_tokens: int = MAX_RECENT_TOKENS) -> None:
        self._max_tokens = max_tokens
        self._tokens = array("i")
        self.text = Text(self._tokens)

    @property
    def num_tokens(self) -> int:
        return len(self._tokens)

    def add(self, token_ids: SequenceOf[int]) -> None:
        """Keep an answer. Where there are too many, forget the older half of what may be kept."""
        self._tokens.extend(token_ids[-self._max_tokens :])
        if len(self._tokens) > self._max_tokens:
            self._tokens = self._tokens[-max(len(token_ids[-self._max_tokens :]), self._max_tokens // 2) :]
            self.text = Text(self._tokens)
        self.grow()

    def grow(self) -> None:
        """Index a part of what is not indexed yet."""
        self.text.grow(self._tokens)


class Guess(NamedTuple):
    """Tokens that may come next, one after the other."""

    run: int  # how many last tokens were seen before; 0: no guess
    token_ids: Iterator[int]


class Memory:
    """What guesses come from: each running sequence's own text, and the recent answers with its salt."""

    def __init__(self, max_tokens: int = MAX_RECENT_TOKENS, max_salts: int = 64) -> None:
        self._max_tokens = max_tokens
        self._max_salts = max_salts
        self._own: dict[int, Text] = {}
        self.num_own_tokens = 0  # indexed, of all running sequences
        self._recent: OrderedDict[str, RecentAnswers] = OrderedDict()

    def guess(self, sequence_id: int, salt: str, token_ids: SequenceOf[int]) -> Guess:
        """What may follow `token_ids`, the whole text of a sequence."""
        own = self._own.setdefault(sequence_id, Text())
        if self.num_own_tokens < MAX_OWN_TOKENS:
            self.num_own_tokens -= own.index.num_indexed
            own.grow(token_ids)
            self.num_own_tokens += own.index.num_indexed
        own.token_ids = token_ids
        texts = [own]
        if recent := self._recent.get(salt):
            recent.grow()
            texts.append(recent.text)
        last = token_ids[-LONGEST:]
        for run in RUNS:
            found = [(length, text is own, place, text) for text in texts for place, length in [text.find(last, run)]]
            length, is_own, place, text = max(found, key=lambda each: each[:2])
            if length:
                going_on: SequenceOf[int] = text.token_ids[place : place + LONGEST]
                is_short = is_own and len(going_on) < LONGEST
                return Guess(length, _copied(token_ids, place) if is_short else iter(going_on))
        return Guess(0, iter(()))

    def finish(self, sequence_id: int, salt: str, answer: SequenceOf[int]) -> None:
        """A sequence ended: others may draft from its answer."""
        if own := self._own.pop(sequence_id, None):
            self.num_own_tokens -= own.index.num_indexed
        if len(answer) <= RUNS[-1]:
            return
        share = self._max_tokens // (4 if salt else 1)  # so that no salt displaces all others
        recent = self._recent.setdefault(salt, RecentAnswers(share))
        recent.add(answer)
        self._recent.move_to_end(salt)
        while len(self._recent) > self._max_salts or self.num_recent_tokens > self._max_tokens:
            if len(self._recent) == 1:
                break
            self._recent.popitem(last=False)

    @property
    def num_recent_tokens(self) -> int:
        """Tokens of the answers that are kept."""
        return sum(recent.num_tokens for recent in self._recent.values())


def _num_equal(text: SequenceOf[int], place: int, last: SequenceOf[int]) -> int:
    """How many tokens before `place` equal the last ones of `last`."""
    before = text[max(0, place - len(last)) : place]
    for number, (one, other) in enumerate(zip(reversed(before), reversed(last), strict=False)):
        if one != other:
            return number
    return min(len(before), len(last))


def _copied(token_ids: SequenceOf[int], place: int) -> Iterator[int]:
    """The text from a place on, and on beyond its end, as if it went on as it repeats itself (Ziv and Lempel, 1977)."""
    copied: list[int] = []
    while True:
        index = place + len(copied)
        token_id = token_ids[index] if index < len(token_ids) else copied[index - len(token_ids)]
        copied.append(token_id)
        yield token_id
