"""Follows one sequence's thought, and decides when and how to close it.

Owns the place in the thought: not begun, open, being closed, over. Its answers depend on nothing but the limit and the
tokens taken so far, so a sequence that is preempted, or resumed by another engine, closes its thought at the same place
with the same tokens. It keeps the last tokens alone, and one that is resumed skips the rest of them (`skip`), so
resuming a long thought costs no more than a short one. It knows token ids only. It acts by biases of logits: a small
one, which the model may follow, and an overwhelming one, which leaves it no choice. So closing needs nothing of a
runner, and a forced token has the log-probability that the model gave it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from enum import Enum, auto

from antiphon.engine.worker import repetition
from antiphon.request import ThinkingLimit, ThoughtClosed

FORCE = 1e6  # a bias larger than any logit, and small enough for float32 to add it without losing the logit
STRONGEST_NUDGE = 16.0  # the bias next to the budget: it multiplies the odds by nine million
_NUDGED_SHARE = 10  # the nudges come in the last tenth of the budget


class Phase(Enum):
    """Where a sequence is."""

    BEFORE = auto()  # the output may still turn out to begin with an opening tag
    OPEN = auto()
    OVER = auto()


class Thought:
    """The thought of one sequence; feed it every output token in order."""

    def __init__(self, limit: ThinkingLimit, *, pauses: bool = False) -> None:
        """`pauses`: where the model closes the thought itself, the blank line that usually follows is forced, as it is
        where the engine closes it; for answers whose grammar has no room for that."""
        self._limit = limit
        self._sentence_ends = frozenset(limit.sentence_end_token_ids)
        self._tag = limit.end_token_ids[0]
        self._pause = _after(self._tag, limit.closing_token_ids) if pauses else ()
        # What is needed of the past: a loop shows in the window, a tag in its own length.
        self._window = max(repetition.WINDOW, *(len(spelling) for spelling in limit.end_token_ids))
        self._last: list[int] = []  # tokens of the thought (before it: of the output), the last `_window` at least
        self._num_tokens = 0  # in all
        self._nudge = 0.0
        self._forced: tuple[int, ...] = ()  # the tokens that must come next
        self._reason: ThoughtClosed | None = None  # reported with the first of them
        self.phase = Phase.BEFORE if limit.begin_token_ids else Phase.OPEN
        if self.phase is Phase.OPEN:
            self._look_ahead()

    def biases(self, requested: Mapping[int, float]) -> dict[int, float]:
        """Biases of the next token that replace the requested ones for the same ids; none where all may go on.

        A nudge is added to the request's own bias, a forced token overrules it.
        """
        if self._forced:
            return {self._forced[0]: FORCE}
        if self._nudge:
            return {self._tag[0]: requested.get(self._tag[0], 0.0) + self._nudge}
        return {}

    @property
    def opening_token_ids(self) -> set[int]:
        """The tokens by which an opening tag may begin or go on, as long as the output may begin with one."""
        if self.phase is not Phase.BEFORE:
            return set()
        said = tuple(self._last)
        spellings = [each for each in self._limit.begin_token_ids if each[: len(said)] == said]
        return {spelling[len(said)] for spelling in spellings}

    def copy(self) -> Thought:
        """Another one at the same place."""
        other = copy(self)
        other._last = [*self._last]
        return other

    @property
    def is_forced(self) -> bool:
        """Whether the next token is decided."""
        return bool(self._forced)

    def take(self, token_id: int) -> ThoughtClosed | None:
        """Follow the sequence by a token; returns why, if this token is the first by which the thought is closed."""
        if self.phase is Phase.OVER:
            return None
        if self._forced:
            return self._take_forced()
        self._remember(token_id)
        if self.phase is Phase.BEFORE:
            self._await_opening()
        elif self._nudge and token_id == self._tag[0]:
            self._force(ThoughtClosed.BUDGET, (*self._tag, *self._pause))
            return self._take_forced()
        elif self._has_ended():
            self._forced, self._nudge = self._pause, 0.0
            if not self._forced:
                self._end()
        else:
            self._look_ahead()
        return None

    def skip(self, token_ids: Sequence[int]) -> int:
        """Take the start of `token_ids`, as far as it provably leaves the thought open; returns how many tokens.

        For a sequence that is resumed: `token_ids` are all that came after what was taken already. The effect is that
        of `take` for each of the tokens, in the time of a search. It relies on one thing: whatever ends a thought,
        be it the model, a budget or a loop, puts a closing tag there, so before the first one nothing had ended it.
        A closing that has begun is not skipped: it begins at most the length of the closing tokens before its tag, or
        before the end where the tag is still to come.
        """
        if self.phase is not Phase.OPEN or self._forced:
            return 0
        before_closing = self._first_tag(token_ids) - max(len(self._limit.closing_token_ids), len(self._tag))
        count = max(0, before_closing)
        if count:
            self._num_tokens += count
            self._last = [*self._last, *token_ids[max(0, count - self._window) : count]][-self._window :]
            self._nudge = self._nudge_at(self._limit.budget - self._num_tokens)
        return count

    def _first_tag(self, token_ids: Sequence[int]) -> int:
        """Where the first closing tag begins, counted from the start of `token_ids`; their number where none does.

        A tag may have begun in what was taken before, so this may be negative.
        """
        longest = max(len(spelling) for spelling in self._limit.end_token_ids)
        before = self._last[len(self._last) - min(longest - 1, len(self._last)) :]
        text = [*before, *token_ids]
        starts = (next(_occurrences(spelling, text), len(text)) for spelling in self._limit.end_token_ids)
        return min(starts) - len(before)

    def _take_forced(self) -> ThoughtClosed | None:
        self._forced = self._forced[1:]
        if not self._forced:
            self._end()
        reason, self._reason = self._reason, None
        return reason

    def _await_opening(self) -> None:
        said = tuple(self._last)
        if said in self._limit.begin_token_ids:
            self.phase = Phase.OPEN
            self._forget()
            self._look_ahead()
        elif not any(spelling[: len(said)] == said for spelling in self._limit.begin_token_ids):
            self._end()

    def _has_ended(self) -> bool:
        return any(self._last[-len(spelling) :] == [*spelling] for spelling in self._limit.end_token_ids)

    def _end(self) -> None:
        self.phase, self._nudge = Phase.OVER, 0.0
        self._forget()

    def _remember(self, token_id: int) -> None:
        self._last.append(token_id)
        self._num_tokens += 1
        if len(self._last) > 2 * self._window:  # not at each token: deleting moves all that stays
            del self._last[: -self._window]

    def _forget(self) -> None:
        self._last, self._num_tokens = [], 0

    def _look_ahead(self) -> None:
        """Decide about the next token."""
        left = self._limit.budget - self._num_tokens
        if left <= 0:
            self._force(ThoughtClosed.BUDGET, self._limit.closing_token_ids)
        elif self._limit.loop_guard and repetition.is_loop(self._last, self._num_tokens):
            self._force(ThoughtClosed.LOOP, self._limit.closing_token_ids)
        else:
            self._nudge = self._nudge_at(left)

    def _nudge_at(self, left: int) -> float:
        """The nudge towards the closing tag with so many tokens left: none but after a sentence in the last tenth."""
        window = self._limit.budget // _NUDGED_SHARE
        if left > window or not self._last or self._last[-1] not in self._sentence_ends:
            return 0.0
        return STRONGEST_NUDGE * (window - left + 1) / window

    def _force(self, reason: ThoughtClosed, token_ids: tuple[int, ...]) -> None:
        self._forced, self._reason = token_ids, reason


def _after(part: tuple[int, ...], token_ids: tuple[int, ...]) -> tuple[int, ...]:
    """What follows the first occurrence of `part` in `token_ids`."""
    start = next(_occurrences(part, token_ids), len(token_ids))
    return token_ids[start + len(part) :]


def _occurrences(part: tuple[int, ...], token_ids: Sequence[int]) -> Iterator[int]:
    """Where `part` begins in `token_ids`, in order; the search for its first token runs in C."""
    start = -1
    while True:
        try:
            start = token_ids.index(part[0], start + 1)
        except ValueError:
            return
        if tuple(token_ids[start : start + len(part)]) == part:
            yield start
