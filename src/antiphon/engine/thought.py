"""Follows one sequence's thought, and says when and how to close it.

Owns the place in the thought: not begun, open, being closed, over. It promises that what it says depends on nothing but
the limit and the tokens taken so far, so a sequence that is preempted, or resumed by another engine, closes its thought
at the same place with the same tokens. It knows token ids only. Its means are biases of logits: a small one, which the
model may follow, and an overwhelming one, which leaves it no choice; so closing needs nothing of a runner, and a forced
token has the log-probability that the model gave it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from antiphon.engine.repetition import is_loop
from antiphon.request import ThinkingLimit, ThoughtClosed

FORCE = 1e6  # a bias beyond all logits, and small enough for float32 to add it without losing sight of them
STRONGEST_NUDGE = 16.0  # the bias next to the budget: it multiplies the odds by nine million
_NUDGED_SHARE = 10  # the nudges come in the last tenth of the budget


class Phase(Enum):
    """Where a sequence is."""

    BEFORE = auto()  # the output may yet turn out to begin with an opening tag
    OPEN = auto()
    OVER = auto()


class Thought:
    """The thought of one sequence; feed it every output token in order."""

    def __init__(self, limit: ThinkingLimit, *, pauses: bool = False) -> None:
        """`pauses`: where the model closes the thought itself, the blank line that it usually goes on with follows, as
        it does where the engine closes it; for answers whose grammar has no room for that."""
        self._limit = limit
        self._sentence_ends = frozenset(limit.sentence_end_token_ids)
        self._tag = limit.end_token_ids[0]
        self._pause = _after(self._tag, limit.closing_token_ids) if pauses else ()
        self._token_ids: list[int] = []  # of the thought; before it, of the output
        self._nudge = 0.0
        self._forced: tuple[int, ...] = ()  # the tokens that must come next
        self._reason: ThoughtClosed | None = None  # to be told with the first of them
        self.phase = Phase.BEFORE if limit.begin_token_ids else Phase.OPEN
        if self.phase is Phase.OPEN:
            self._look_ahead()

    def biases(self, wished: Mapping[int, float]) -> dict[int, float]:
        """Biases of the next token that take the place of the wished ones for the same ids; none where all may go on.

        A nudge is added to the request's own bias, a forced token overrules it.
        """
        if self._forced:
            return {self._forced[0]: FORCE}
        if self._nudge:
            return {self._tag[0]: wished.get(self._tag[0], 0.0) + self._nudge}
        return {}

    @property
    def opening_token_ids(self) -> set[int]:
        """The tokens by which an opening tag may begin or go on, as long as the output may begin with one."""
        if self.phase is not Phase.BEFORE:
            return set()
        said = tuple(self._token_ids)
        spellings = [each for each in self._limit.begin_token_ids if each[: len(said)] == said]
        return {spelling[len(said)] for spelling in spellings}

    @property
    def is_forced(self) -> bool:
        """Whether the next token is decided."""
        return bool(self._forced)

    def take(self, token_id: int) -> ThoughtClosed | None:
        """Follow the sequence by a token; says why, if this token is the first by which the thought is closed."""
        if self.phase is Phase.OVER:
            return None
        if self._forced:
            return self._take_forced()
        self._token_ids.append(token_id)
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

    def _take_forced(self) -> ThoughtClosed | None:
        self._forced = self._forced[1:]
        if not self._forced:
            self._end()
        reason, self._reason = self._reason, None
        return reason

    def _await_opening(self) -> None:
        said = tuple(self._token_ids)
        if said in self._limit.begin_token_ids:
            self.phase = Phase.OPEN
            self._token_ids.clear()
            self._look_ahead()
        elif not any(spelling[: len(said)] == said for spelling in self._limit.begin_token_ids):
            self._end()

    def _has_ended(self) -> bool:
        return any(self._token_ids[-len(spelling) :] == [*spelling] for spelling in self._limit.end_token_ids)

    def _end(self) -> None:
        self.phase, self._nudge = Phase.OVER, 0.0
        self._token_ids.clear()

    def _look_ahead(self) -> None:
        """What is to become of the next token."""
        left = self._limit.budget - len(self._token_ids)
        if left <= 0:
            self._force(ThoughtClosed.BUDGET, self._limit.closing_token_ids)
        elif self._limit.loop_guard and is_loop(self._token_ids):
            self._force(ThoughtClosed.LOOP, self._limit.closing_token_ids)
        else:
            self._nudge = self._nudge_at(left)

    def _nudge_at(self, left: int) -> float:
        """The nudge towards the closing tag with so many tokens left: none but after a sentence in the last tenth."""
        window = self._limit.budget // _NUDGED_SHARE
        if left > window or not self._token_ids or self._token_ids[-1] not in self._sentence_ends:
            return 0.0
        return STRONGEST_NUDGE * (window - left + 1) / window

    def _force(self, reason: ThoughtClosed, token_ids: tuple[int, ...]) -> None:
        self._forced, self._reason = token_ids, reason


def _after(part: tuple[int, ...], token_ids: tuple[int, ...]) -> tuple[int, ...]:
    """What follows `part` where it stands in `token_ids`."""
    ends = (start + len(part) for start in range(len(token_ids)) if token_ids[start : start + len(part)] == part)
    return token_ids[next(ends, len(token_ids)) :]
