"""What decides about one sequence's next token beside the model: the limit of its thought, and its grammar.

Owns both, and feeds them each output token in order. What it says depends on nothing but the request and the tokens
taken. It can be copied, so that tokens which may turn out otherwise are followed without harm.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from copy import copy
from typing import TYPE_CHECKING

from antiphon.engine.worker.constraint import Constraint
from antiphon.engine.worker.thought import Phase, Thought
from antiphon.request import SamplingParams, ThoughtClosed
from antiphon.step import SampleSpec

if TYPE_CHECKING:
    from antiphon.grammar.matcher import Matcher

_REPLAYED_AT_ONCE = 256  # tokens; a grammar may take some 100 µs for each


class Guidance:
    """The guidance of one sequence."""

    def __init__(self, sampling: SamplingParams, choice_index: int, matcher: Matcher | None) -> None:
        """`matcher`: of the request's grammar, at its beginning; for this sequence alone."""
        self._sampling = sampling
        self._choice_index = choice_index
        self._thought = Thought(sampling.thinking, pauses=matcher is not None) if sampling.thinking else None
        self._constraint = Constraint(matcher, self._thought) if matcher else None

    def copy(self) -> Guidance:
        """Another one at the same place; this one, if it has no place."""
        if self._thought is None and self._constraint is None:
            return self
        other = copy(self)
        other._thought = self._thought.copy() if self._thought else None
        other._constraint = self._constraint.copy(other._thought) if self._constraint else None
        return other

    @property
    def decided(self) -> int | None:
        """The only token that can come next, where there is no choice."""
        if self._thought and self._thought.is_forced:
            return next(iter(self._thought.biases({})))
        return self._constraint.only_token if self._constraint else None

    @property
    def may_decide(self) -> bool:
        """Whether there ever is a token that can come next alone."""
        return self._thought is not None or self._constraint is not None

    def allows(self, token_id: int) -> bool:
        """Whether the grammar allows the token to come next."""
        return self._constraint is None or self._constraint.allows(token_id)

    def take(self, token_id: int) -> ThoughtClosed | None:
        """Follow a token; returns why, if it is the first of those by which the engine closes the thought."""
        thought_closed = self._thought.take(token_id) if self._thought else None
        if self._constraint:
            self._constraint.take(token_id)
        return thought_closed

    def look_ahead(self, bitmask: bytes | None = None) -> str | None:
        """Prepare for the next token. Returns why, if the grammar makes that impossible.

        `bitmask`: that of the next token, if a copy at the same place has computed it.
        """
        return self._constraint.look_ahead(bitmask) if self._constraint else None

    def resume(self, token_ids: SequenceOf[int], on_progress: Callable[[], None]) -> None:
        """Follow the tokens that an earlier engine produced: of a thought only what still matters, of a grammar all.

        `on_progress` is called now and then.
        """
        position, has_skipped = 0, False
        while position < len(token_ids) and self._thought and self._thought.phase is not Phase.OVER:
            if self._thought.phase is Phase.OPEN and not has_skipped:
                position, has_skipped = position + self._thought.skip(token_ids[position:]), True
            self.take(token_ids[position])
            position += 1
        if self._constraint:
            for number, token_id in enumerate(token_ids[position:]):
                self.take(token_id)
                if number % _REPLAYED_AT_ONCE == 0:
                    on_progress()

    def spec(
        self, position: int, eos_token_ids: SequenceOf[int], history: SequenceOf[int], num_prompt_tokens: int
    ) -> SampleSpec:
        """How to draw the next token, the output token number `position`. `look_ahead` was called before."""
        sampling = self._sampling
        masked: tuple[int, ...] = ()
        if position < sampling.min_tokens:
            masked = (*sampling.stop_token_ids, *(() if sampling.ignore_eos else eos_token_ids))
        elif self._thought and self._thought.phase is Phase.OPEN:  # an end there would leave no answer
            masked = (*eos_token_ids,)
        biases = self._thought.biases(sampling.logit_bias) if self._thought else {}
        if self._thought and self._thought.is_forced:
            masked = tuple(id for id in masked if id not in biases)
        return SampleSpec(
            sampling=sampling,
            choice_index=self._choice_index,
            position=position,
            masked_token_ids=masked,
            history=history if sampling.needs_history else (),
            num_prompt_tokens=num_prompt_tokens,
            step_logit_bias=biases,
            token_bitmask=self._constraint.bitmask if self._constraint else b"",
        )
