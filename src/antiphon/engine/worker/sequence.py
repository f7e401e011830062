"""One sequence in the engine: the tokens it knows, how many of them are computed, and the blocks that hold their K/V.

Owned by the scheduler, which alone changes it. There are no phases: a sequence is `known - computed` tokens behind, and
that is all the scheduler looks at. Its numbers are always consistent; it knows nothing of other sequences, of the
pool's internals or of the runner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from antiphon.engine.worker.guidance import Guidance
from antiphon.engine.worker.thought import FORCE
from antiphon.request import FinishReason, GenerateRequest, RequestProgress, SamplingParams, ThoughtClosed
from antiphon.step import SampleSpec

if TYPE_CHECKING:
    from antiphon.grammar.matcher import Matcher


@dataclass(slots=True)
class Proposal:
    """Drafted tokens that may follow a sequence's last known one, and how to draw what follows each of them."""

    token_ids: list[int] = field(default_factory=list)
    is_decided: list[bool] = field(default_factory=list)
    specs: list[SampleSpec] = field(default_factory=list)

    def cut(self, length: int) -> None:
        """Keep the first tokens only."""
        del self.token_ids[length:], self.is_decided[length:], self.specs[length:]


class Sequence:
    """A request being generated."""

    def __init__(
        self,
        sequence_id: int,
        request: GenerateRequest,
        matcher: Matcher | None = None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        """`matcher`: of the request's grammar, at its beginning; for this sequence alone.

        `on_progress` is called now and then while tokens that an earlier engine produced are taken.
        """
        self.sequence_id = sequence_id  # grows with arrival
        self.request = request
        self.token_ids = [*request.prompt_token_ids, *request.output_token_ids]  # all known tokens
        self._next_scored = len(request.prompt_token_ids) - request.num_scored_tokens  # the index of that token
        self._scoring = SamplingParams(temperature=0.0, num_logprobs=request.sampling.num_logprobs)
        self.num_prompt_tokens = len(request.prompt_token_ids)
        self.num_input_tokens = len(self.token_ids)  # tokens known at its arrival
        self.num_computed_tokens = 0
        self.num_reached_tokens = 0  # the most tokens that were ever computed, before a preemption
        self.num_published_blocks = 0  # of the block table's start, those that others can find
        self.num_cached_tokens = 0  # prompt tokens whose K/V others had computed
        self.block_table: list[int] = []
        self.has_begun = False  # whether any of it was ever scheduled
        self.reported_position = 0  # the place in the queue that was last reported; 0: none
        self.was_preempted = False
        self.is_deferred = False  # whether ordinary sequences of its priority go first
        self.has_reported = bool(request.output_token_ids)  # whether an event of this request went out, ever
        self._guidance = Guidance(request.sampling, request.choice_index, matcher)
        self._guidance.resume(request.output_token_ids, on_progress)

    @property
    def order(self) -> tuple[int, bool, int]:
        """Its place among those of its client: by priority, deferred ones last, then in order of arrival."""
        return self.request.priority, self.is_deferred, self.sequence_id

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def num_tokens(self) -> int:
        """Known tokens."""
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return max(0, len(self.token_ids) - self.num_prompt_tokens)

    @property
    def is_scoring(self) -> bool:
        """Whether the next result is the log-probability of one of the prompt's tokens."""
        return self._next_scored < self.num_prompt_tokens

    @property
    def num_findable_tokens(self) -> int:
        """Tokens of which all but the last may come from the prefix cache: beyond that, something is to be drawn."""
        return self._next_scored if self.is_scoring else self.num_tokens

    @property
    def reports_progress(self) -> bool:
        """Whether the client wants to know how far it is: until its first token, if it asked for that."""
        return self.request.reports_progress and not self.num_output_tokens

    @property
    def prompt_progress(self) -> RequestProgress:
        """How much of the prompt is computed."""
        num_computed = min(self.num_computed_tokens, self.num_prompt_tokens)
        num_cached = min(self.num_cached_tokens, num_computed)  # blocks may be lost again by a preemption
        return RequestProgress(self.request_id, 0, num_computed, num_cached)

    @property
    def gap(self) -> int:
        """Known tokens that are not computed yet; at least one while the sequence lives."""
        return len(self.token_ids) - self.num_computed_tokens

    def take(self, token_id: int) -> ThoughtClosed | None:
        """Take a drawn token, which is a new one or scores one of the prompt.

        Returns why, if it is the first of those by which the engine closes the thought.
        """
        if self.is_scoring:
            self._next_scored += 1
            return None
        self.token_ids.append(token_id)
        return self._guidance.take(token_id)

    def look_ahead(self, prepared: SampleSpec | None = None) -> str | None:
        """Prepare to draw the next token. Returns why, if the request's grammar makes that impossible.

        `prepared`: how the next token is drawn, if that is known: the spec from a proposal that was right so far.
        """
        return self._guidance.look_ahead(prepared.token_bitmask if prepared else None)

    def take_blocks(self) -> list[int]:
        """Give up all blocks, and with them what is computed; every known token stays known."""
        blocks, self.block_table = self.block_table, []
        self.num_computed_tokens = 0
        self.num_published_blocks = 0
        return blocks

    def advance(self, num_tokens: int) -> int:
        """Count tokens as computed; returns how many of those known at arrival were computed for the first time."""
        start = max(self.num_computed_tokens, self.num_reached_tokens)
        self.num_computed_tokens += num_tokens
        self.num_reached_tokens = max(self.num_computed_tokens, self.num_reached_tokens)
        return max(0, min(self.num_computed_tokens, self.num_input_tokens) - start)

    def count_hit(self, num_tokens: int) -> None:
        """Count tokens found in the prefix cache; not after a preemption, when they may be the sequence's own."""
        if not self.was_preempted:
            self.num_cached_tokens = min(self.num_cached_tokens + num_tokens, self.num_prompt_tokens)

    def propose(
        self, guess: Iterator[int], guessed: int, most: int, eos_token_ids: SequenceOf[int], context_length: int
    ) -> Proposal:
        """Tokens that may follow the last known one: at most `most`, of them the first `guessed` from `guess`.

        Beyond those only tokens that are decided: where a grammar or the limit of a thought leaves one possibility. The
        proposal ends where the guess does, where the grammar does not allow it, and before a token that would end the
        sequence, since nothing is drawn after that.
        """
        proposal = Proposal()
        if self.is_scoring or not (guessed or self._guidance.may_decide):
            return proposal
        guidance = self._guidance.copy()
        sampling = self.request.sampling
        most = min(most, sampling.max_tokens - self.num_output_tokens - 1, context_length - self.num_tokens - 1)
        while len(proposal.token_ids) < most:
            guessed_id, decided = next(guess, None), guidance.decided
            if decided is None and len(proposal.token_ids) >= guessed:
                break
            token_id = guessed_id if decided is None else decided
            if token_id is None or not guidance.allows(token_id) or self._is_end(token_id, eos_token_ids):
                break
            guidance.take(token_id)
            if guidance.look_ahead():
                break
            proposal.token_ids.append(token_id)
            proposal.is_decided.append(decided is not None)
            position = self.num_output_tokens + len(proposal.token_ids)
            spec = self._spec(guidance, position, eos_token_ids)
            if sampling.needs_history:
                spec = replace(spec, drafted=tuple(proposal.token_ids))
            proposal.specs.append(spec)
            if guessed_id != token_id:
                guess = iter(())
        return proposal

    def sample_specs(self, end: int, eos_token_ids: SequenceOf[int]) -> list[SampleSpec]:
        """What is drawn where the tokens up to `end` are computed: scores of the prompt's, and a new token."""
        specs = []
        if self.is_scoring:
            scored = self.token_ids[self._next_scored : min(end + 1, self.num_prompt_tokens)]
            specs = [self._scoring_spec(token_id) for token_id in scored]
        if end == self.num_tokens:
            specs.append(self._next_spec(eos_token_ids))
        return specs

    def spec_ahead(self, eos_token_ids: SequenceOf[int]) -> SampleSpec | None:
        """How to draw the token after the next one, before the next one is known; None where that cannot be foreseen.

        A thought that is open is expected to stay open: `sample_specs` says in the end how the token is drawn.
        """
        if self.request.sampling.needs_history or self.request.sampling.grammar is not None:
            return None
        spec = self._spec(self._guidance, self.num_output_tokens + 1, eos_token_ids)
        return None if spec.step_logit_bias or spec.token_bitmask else spec

    def _next_spec(self, eos_token_ids: SequenceOf[int]) -> SampleSpec:
        """How to draw the token after the last known one."""
        return self._spec(self._guidance, self.num_output_tokens, eos_token_ids)

    def _spec(self, guidance: Guidance, position: int, eos_token_ids: SequenceOf[int]) -> SampleSpec:
        return guidance.spec(position, eos_token_ids, self.token_ids, self.num_prompt_tokens)

    def _scoring_spec(self, token_id: int) -> SampleSpec:
        """How to draw a token that is decided, for the sake of its log-probability."""
        return SampleSpec(
            sampling=self._scoring,
            choice_index=self.request.choice_index,
            position=0,
            step_logit_bias={token_id: FORCE},
        )

    def finish_reason(self, eos_token_ids: SequenceOf[int], context_length: int) -> FinishReason | None:
        """Whether the known tokens end it, and why."""
        if self.is_scoring:
            return None
        sampling = self.request.sampling
        if self.num_output_tokens and self._is_end(self.token_ids[-1], eos_token_ids):
            return FinishReason.STOP
        if self.num_output_tokens >= sampling.max_tokens or self.num_tokens >= context_length:
            return FinishReason.LENGTH
        return None

    def _is_end(self, token_id: int, eos_token_ids: SequenceOf[int]) -> bool:
        sampling = self.request.sampling
        return token_id in sampling.stop_token_ids or (token_id in eos_token_ids and not sampling.ignore_eos)
