"""Decides what each step computes. One idea: close the gap between known and computed tokens within a token budget.

Owns every sequence from its arrival to its terminal event. Sequences that wait for their next token come first, then
those further behind, then newcomers. Prefill, its chunks, decode, prefix-cache hits, resuming after an engine's death
and recomputing after preemption are all this one idea with other numbers. The order among sequences is that of `turns`:
by priority, by the clients' fair shares, then first come, first served. The last in that order is preempted first, for
want of blocks or because it took more than its client's share. Each request added gets exactly one terminal event, a
step never exceeds its budget, and the first in order always moves on, so every request ends unless others with a better
priority keep arriving. It knows token ids and block ids; no tensors, no clock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from antiphon.engine.budget import StepBudget
from antiphon.engine.worker.blocks import BlockKey, BlockPool
from antiphon.engine.worker.kv_cache_manager import KVCacheManager, PrefixCounts
from antiphon.engine.worker.look_ahead import LookAhead, draws_as_planned
from antiphon.engine.worker.prefill import PrefillSharing
from antiphon.engine.worker.sequence import Proposal, Sequence
from antiphon.engine.worker.speculation import Speculation
from antiphon.engine.worker.turns import FLEX_STEPS, Turns, max_lead
from antiphon.request import FinishReason, GenerateRequest, RequestProgress, TokenEvent
from antiphon.step import PENDING, SampledToken, SampleSpec, ScheduledSequence, StepPlan, StepResult

if TYPE_CHECKING:
    from antiphon.grammar.matcher import Matcher


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """What a scheduler must keep to."""

    max_num_sequences: int  # running at once
    max_batch_tokens: int  # computed in one step
    prefill_chunk: int  # of one sequence in a step; 0: no cap
    context_length: int  # tokens of a sequence, prompt and answer; the pool must hold one such sequence
    eos_token_ids: tuple[int, ...]
    flex_steps: int = FLEX_STEPS  # after so many, a flex sequence counts as an ordinary one


@dataclass(slots=True)
class SchedulerCounts:
    """What only grows, for the metrics."""

    num_computed_tokens: int = 0
    num_preemptions: int = 0


class Scheduler:
    """Continuous batching over one block pool."""

    def __init__(
        self,
        pool: BlockPool,
        budget: StepBudget,
        limits: SchedulerLimits,
        speculation: Speculation | None = None,
        may_be_pending: Callable[[SampleSpec], bool] = lambda spec: True,
    ) -> None:
        """`may_be_pending`: as `AheadRunner.may_be_pending`."""
        assert pool.num_blocks * pool.block_size >= limits.context_length, "the pool must hold one full context"
        self._kv_cache = KVCacheManager(pool)
        self._has_prefix_cache = pool.prefix_caching
        self._budget = budget
        self._limits = limits
        self._speculation = speculation
        # Each running sequence gets at least one token a step, so that none of them starves.
        self._max_running = min(limits.max_num_sequences, limits.max_batch_tokens)
        lead = max_lead(self._max_running, limits.max_batch_tokens, limits.context_length)
        self._turns = Turns(lead, limits.max_batch_tokens, limits.flex_steps)
        self._prefill = PrefillSharing()
        self._look_ahead = LookAhead(pool, limits.eos_token_ids, limits.context_length, may_be_pending)
        self._sequences: dict[str, Sequence] = {}  # all of them, by request id
        self._ended: list[TokenEvent] = []  # terminal events that did not come from a step
        self._finished: list[int] = []  # sequences that ended since the last plan that computes something
        self._num_arrived = 0
        self.planned: list[str] = []  # requests in the last plan
        self.begun: list[str] = []  # of those, the ones that were never in a plan before
        self.prompt_progress: list[RequestProgress] = []  # of those, the ones that report it and had no token before
        self.counts = SchedulerCounts()

    @property
    def num_running(self) -> int:
        return self._turns.num_running

    @property
    def prefix(self) -> PrefixCounts:
        """What was looked up and found in the prefix cache."""
        return self._kv_cache.prefix

    @property
    def num_waiting(self) -> int:
        return self._turns.num_waiting

    @property
    def has_work(self) -> bool:
        """Whether there is a sequence to move on or an event to fetch."""
        return bool(self._sequences or self._ended)

    def add(
        self,
        request: GenerateRequest,
        matcher: Matcher | None = None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Accept a request, with the matcher of its grammar, if it has one.

        One that cannot be computed here ends at once, with its event in the next update. `on_progress` is called now
        and then where that takes long, as it may for a request with many tokens from an earlier engine.
        """
        assert request.prompt_token_ids, "a prompt has at least one token"
        assert request.request_id not in self._sequences, f"request {request.request_id} runs already"
        sequence = Sequence(self._num_arrived, request, matcher, on_progress)
        self._num_arrived += 1
        limit = self._limits.context_length
        if sequence.num_prompt_tokens >= limit:
            message = f"The prompt has {sequence.num_prompt_tokens} tokens, but a sequence may have {limit} here."
            self.refuse(request.request_id, message)
        elif reason := sequence.finish_reason(self._limits.eos_token_ids, limit):  # resumed just after its last token
            self._ended.append(TokenEvent(request.request_id, finish_reason=reason))
        elif error := sequence.look_ahead():
            self.refuse(request.request_id, error)
        else:
            self._sequences[request.request_id] = sequence
            self._turns.add(sequence)

    def charge_elsewhere(self, clients: Mapping[str, float]) -> None:
        """Count service that clients have had from other servers: weighted tokens, by fairness id."""
        for fairness_id, service in clients.items():
            self._turns.charge_elsewhere(fairness_id, service)

    def refuse(self, request_id: str, error: str) -> None:
        """End a request that was not accepted."""
        self._ended.append(TokenEvent(request_id, finish_reason=FinishReason.ERROR, error=error))

    def abort(self, request_id: str) -> None:
        """End a request and free its blocks now; unknown ids are ignored, since it may just have finished."""
        if sequence := self._sequences.get(request_id):
            self._remove(sequence)
            self._ended.append(TokenEvent(request_id, finish_reason=FinishReason.ABORT))

    def schedule(self) -> StepPlan:
        """Plan the next step: running sequences get blocks, waiting ones start if they fit, all share the budget."""
        self._look_ahead.reset()
        self._turns.begin_step()
        self._make_room()
        self._admit()
        shares = list(self._share_budget())
        self.planned = [sequence.request_id for sequence, _ in shares]
        self.begun = [sequence.request_id for sequence, _ in shares if not sequence.has_begun]
        for sequence, _ in shares:
            sequence.has_begun = True
        self._draft(shares)
        entries = [self._entry(sequence, count) for sequence, count in shares]
        finished: list[int] = []
        if entries:  # an empty plan is not executed
            finished, self._finished = self._finished, []
        return StepPlan(entries, finished)

    def schedule_ahead(self, plan: StepPlan) -> StepPlan | None:
        """Plan the step after `plan`, which runs; None where its results have to be known first (`look_ahead`).

        Both plans are updated in turn, and in between nothing is scheduled in any other way.
        """
        if not plan.sequences or (self._speculation and self._speculation.is_drafting):
            return None
        first = self._turns.first_waiting
        if first and self.num_running < self._max_running and self._kv_cache.can_start(first, self._num_spare):
            return None
        is_wanted_elsewhere = first is not None or self._speculation is not None
        ahead = self._look_ahead.plan(self._turns.running, plan, is_wanted_elsewhere=is_wanted_elsewhere)
        if ahead:
            self._turns.begin_step()
        return ahead

    def update(self, plan: StepPlan, result: StepResult) -> list[TokenEvent]:
        """Record what a step computed; returns the events of all that happened since the last update."""
        events, self._ended = self._ended, []
        self.prompt_progress = []
        sequences = {sequence.sequence_id: sequence for sequence in self._turns.running}
        tokens: dict[int, list[SampledToken]] = defaultdict(list)
        for token in result.sampled:
            tokens[token.sequence_id].append(token)
        for entry in plan.sequences:
            sequence, drawn = sequences.get(entry.sequence_id), tokens[entry.sequence_id]
            if sequence is None:  # it ended while the step ran
                continue
            if entry.token_ids[0] == PENDING and not draws_as_planned(sequence, entry, self._limits.eos_token_ids):
                continue
            proposal = self._proposal(sequence)
            num_drafted = len(proposal.token_ids)
            if all(token.error is None for token in drawn[: len(drawn) - num_drafted]):
                self._advance(sequence, len(entry.token_ids) - num_drafted)
                if sequence.reports_progress:
                    self.prompt_progress.append(sequence.prompt_progress)
            events += self._take_tokens(sequence, drawn, proposal)
            self._kv_cache.trim(sequence)
        self.counts.num_computed_tokens += plan.num_tokens
        return events

    def queue_progress(self) -> list[RequestProgress]:
        """The new places in the queue of the requests that report them, where they changed since the last call.

        The queue is everything that no step has begun, and what was preempted and waits again.
        """
        queue = [sequence for sequence in self._turns.running if not sequence.has_begun] + self._turns.waiting
        changed = []
        for position, sequence in enumerate(queue, start=1):
            if sequence.reports_progress and sequence.reported_position != position:
                sequence.reported_position = position
                changed.append(RequestProgress(sequence.request_id, position))
        return changed

    def check(self) -> None:
        """Assert that the accounts close; for idle moments and tests."""
        running, waiting = self._turns.running, self._turns.waiting
        self._turns.check()
        self._kv_cache.check(running)
        assert {*running, *waiting} == {*self._sequences.values()}, "a sequence is lost"
        assert not any(sequence.block_table for sequence in waiting), "a waiting sequence holds blocks"

    # --- room: blocks and places

    def _make_room(self) -> None:
        """Give each running sequence blocks for all its known tokens, in order, at the last one's cost."""
        running = self._turns.running
        while running:
            sequence = running.pop(0)
            while not (has_room := self._kv_cache.grow(sequence)) and running:
                self._preempt(running.pop())
            if not has_room:
                self._preempt(sequence)

    def _preempt(self, sequence: Sequence) -> None:
        """Back to its place in the queue; its tokens stay known, and its published blocks may be found again."""
        self._turns.stop(sequence)
        self._kv_cache.free(sequence)
        sequence.was_preempted = True
        sequence.reported_position = 0
        self.counts.num_preemptions += 1

    def _admit(self) -> None:
        """Start waiting sequences in order while places and blocks last, and where fairness asks for others' places."""
        while first := self._turns.first_waiting:
            has_place = self.num_running < self._max_running
            if has_place and self._kv_cache.start(first, self._num_spare):
                self._turns.start(first)
            elif not self._preempt_for(first, needs_blocks=has_place):
                return

    def _preempt_for(self, first: Sequence, *, needs_blocks: bool) -> bool:
        """Preempt the last running sequence if it has to give way to the first waiting one; returns whether it did."""
        last = self._turns.last_running
        if last is None or not self._turns.gives_way(last, first, num_recomputed=0):
            return False
        # Where blocks are left, the preempted sequence finds its own again in the prefix cache.
        finds_its_own = self._has_prefix_cache and not needs_blocks and self._kv_cache.can_start(first, self._num_spare)
        if not self._turns.gives_way(last, first, num_recomputed=0 if finds_its_own else last.num_computed_tokens):
            return False
        self._preempt(last)
        return True

    @property
    def _num_spare(self) -> int:
        """Blocks that a newcomer leaves free: one for each running sequence, or it would soon be preempted."""
        return self.num_running

    # --- the budget

    def _share_budget(self) -> Iterator[tuple[Sequence, int]]:
        """Who computes how many tokens: one for each that waits for its next token, the rest for those behind."""
        running = self._turns.running
        decoding = [sequence for sequence in running if sequence.gap == 1]
        behind = self._without_twins([sequence for sequence in running if sequence.gap > 1])
        yield from ((sequence, 1) for sequence in decoding)
        left = self._budget.tokens(len(decoding), len(behind)) - len(decoding)
        gaps = [sequence.gap for sequence in behind]
        caps = [min(gap, self._limits.prefill_chunk or gap) for gap in gaps]
        may_jump = [self._turns.is_level(behind[0], sequence) for sequence in behind]
        counts = self._prefill.divide(left, gaps, caps, may_jump)
        yield from ((sequence, count) for sequence, count in zip(behind, counts, strict=True) if count)

    def _without_twins(self, behind: list[Sequence]) -> list[Sequence]:
        """Those that compute now: one that needs the same block as another before it waits for it instead."""
        begun: set[BlockKey] = set()
        chosen = []
        for sequence in behind:
            key = self._kv_cache.skip_ahead(sequence)
            if key not in begun:
                chosen.append(sequence)
            if key:
                begun.add(key)
        return chosen

    # --- drafts

    def _draft(self, shares: list[tuple[Sequence, int]]) -> None:
        """Draft where the step computes nothing but last tokens."""
        if self._speculation:
            sequences = [sequence for sequence, _ in shares]
            decoding = sequences if all(sequence.gap == 1 for sequence in sequences) else []
            eos, limit = self._limits.eos_token_ids, self._limits.context_length
            self._speculation.plan(decoding, self._room_for_draft, eos, limit)

    def _proposal(self, sequence: Sequence) -> Proposal:
        return self._speculation.of(sequence) if self._speculation else Proposal()

    def _room_for_draft(self, sequence: Sequence, wanted: int) -> int:
        """How many tokens of a draft have room, without blocks that another sequence will need soon."""
        return self._kv_cache.grow_for_draft(sequence, wanted, self._num_spare)

    def _entry(self, sequence: Sequence, count: int) -> ScheduledSequence:
        start, proposal = sequence.num_computed_tokens, self._proposal(sequence)
        return ScheduledSequence(
            sequence_id=sequence.sequence_id,
            token_ids=[*sequence.token_ids[start : start + count], *proposal.token_ids],
            num_computed_tokens=start,
            block_table=list(sequence.block_table),
            samples=[*sequence.sample_specs(start + count, self._limits.eos_token_ids), *proposal.specs],
        )

    # --- what came back

    def _advance(self, sequence: Sequence, num_tokens: int) -> None:
        """Count tokens as computed and publish the blocks they filled."""
        self._turns.charge(sequence, num_input=sequence.advance(num_tokens))
        self._kv_cache.publish(sequence)

    def _take_tokens(self, sequence: Sequence, tokens: list[SampledToken], proposal: Proposal) -> list[TokenEvent]:
        """Take the tokens drawn for a sequence in order, up to its end or the first one that was drafted wrong."""
        events: list[TokenEvent] = []
        draft, num_right = proposal.token_ids, 0
        for number, token in enumerate(tokens):
            is_right = number < len(draft) and draft[number] == token.token_id
            events.append(self._take_token(sequence, token, proposal.specs[number] if is_right else None))
            if events[-1].finish_reason:
                break
            if number < len(draft):
                if not is_right:
                    break
                num_right += 1
                if tokens[number + 1].error is None:
                    self._advance(sequence, 1)
        if self._speculation and draft:
            self._speculation.observe_draft(sequence, num_right)
            events[-1] = replace(events[-1], num_drafted_tokens=len(draft), num_accepted_tokens=num_right)
        return events

    def _take_token(self, sequence: Sequence, token: SampledToken, prepared: SampleSpec | None = None) -> TokenEvent:
        """Append a drawn token, or fail this sequence only. Ends the sequence where that is due.

        `prepared`: how the token after it was drawn, if it was drafted right.
        """
        thought_closed, was_scoring = None, sequence.is_scoring
        reason, error = None, token.error
        if error is None:
            thought_closed = sequence.take(token.token_id)
            self._turns.charge(sequence, num_output=0 if was_scoring else 1)
            reason = sequence.finish_reason(self._limits.eos_token_ids, self._limits.context_length)
            error = None if reason or was_scoring else sequence.look_ahead(prepared)
        if error is not None:
            reason = FinishReason.ERROR
        first, sequence.has_reported = not sequence.has_reported, True
        if reason:
            self._remove(sequence)
        return TokenEvent(
            request_id=sequence.request_id,
            token_id=token.token_id if token.error is None and not was_scoring else None,
            logprobs=token.logprobs,
            finish_reason=reason,
            num_cached_tokens=sequence.num_cached_tokens if first else 0,
            thought_closed=thought_closed,
            is_prompt=was_scoring and token.error is None,
            error=error,
        )

    def _remove(self, sequence: Sequence) -> None:
        """Forget a sequence and give its blocks back."""
        del self._sequences[sequence.request_id]
        self._finished.append(sequence.sequence_id)
        if self._speculation:
            self._speculation.finish(sequence)
        if self._turns.remove(sequence):
            self._kv_cache.free(sequence)
