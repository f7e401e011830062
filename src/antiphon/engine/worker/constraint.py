"""What a grammar lets one sequence say next: anything in its thought, and what the grammar allows from the answer on.

Owns the sequence's place in its grammar. Its masks depend on nothing but the grammar and the tokens taken, so a
sequence that is preempted, or resumed by another engine, continues under the same masks. Where the output may
still turn out to begin with a thought, both ways stay open until it is clear which one was taken.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from antiphon.engine.worker.thought import Phase, Thought
from antiphon.grammar import GrammarError

if TYPE_CHECKING:  # the library behind it is loaded where grammars are compiled
    from antiphon.grammar.matcher import Matcher


class Constraint:
    """The grammar of one sequence; feed it every output token in order."""

    def __init__(self, matcher: Matcher, thought: Thought | None) -> None:
        """`thought` is the sequence's own, which is fed by it, before this."""
        self._start = matcher
        self._thought = thought
        self._phase = self._thought_phase
        self._place: Matcher | None = matcher.copy()  # None: what was said is no beginning of an answer
        self._error: str | None = None
        self.bitmask = b""  # of the next token, once `look_ahead` was called; empty: every token may come

    def copy(self, thought: Thought | None) -> Constraint:
        """Another one at the same place; `thought` is a copy of this one's."""
        other = copy(self)
        other._thought = thought
        other._place = self._place.copy() if self._place else None
        return other

    def allows(self, token_id: int) -> bool:
        """Whether the token may come next."""
        if not self.bitmask:
            return True
        index = token_id // 8
        return index < len(self.bitmask) and bool(self.bitmask[index] >> token_id % 8 & 1)

    @property
    def only_token(self) -> int | None:
        """The token that must come next, where only one may."""
        bits = int.from_bytes(self.bitmask, "little")
        return bits.bit_length() - 1 if bits and not bits & (bits - 1) else None

    def take(self, token_id: int) -> None:
        """Follow the sequence by a token."""
        was, self._phase = self._phase, self._thought_phase
        if was is Phase.OPEN:
            return
        if was is Phase.BEFORE and self._phase is Phase.OPEN:
            self._place = self._start.copy()
        elif self._place is not None:
            self._go_on(self._place, token_id)

    def look_ahead(self, bitmask: bytes | None = None) -> str | None:
        """Compute the next token's mask. Returns why, if the grammar cannot be followed any further.

        `bitmask`: the mask, if a copy at the same place has computed it.
        """
        self.bitmask = bitmask or b""
        if bitmask is not None:
            return self._error
        if self._phase is Phase.OPEN or self._error:
            return self._error
        try:
            self.bitmask = self._mask()
        except GrammarError as error:
            self._fail(error)
        return self._error

    @property
    def _thought_phase(self) -> Phase:
        return self._thought.phase if self._thought else Phase.OVER

    def _go_on(self, place: Matcher, token_id: int) -> None:
        try:
            place.take(token_id)
        except GrammarError as error:
            self._place = None
            if self._phase is Phase.OVER:
                self._fail(error)

    def _fail(self, error: GrammarError) -> None:
        self._error = f"The grammar of this request could not be followed: {error}."

    def _mask(self) -> bytes:
        answer = self._place.bitmask() if self._place else b"\0" * 4
        if self._phase is Phase.OVER or self._thought is None:
            return answer
        opening = 0
        for token_id in self._thought.opening_token_ids:
            opening |= 1 << token_id
        size = max(len(answer), -(-opening.bit_length() // 32) * 4)
        return (int.from_bytes(answer, "little") | opening).to_bytes(size, "little")
