"""Plans the next step while one runs, before the tokens that the running step draws are known.

A GPU computes by itself, so the next step can be prepared and submitted meanwhile. Such a plan computes the token that
the running step draws for a sequence, whatever it is (`step.PENDING`), and draws the one after it. This module decides
which sequences a plan may contain: those that need one more token, where neither the device nor the way of drawing
needs the pending token first. The others are left out of this step and are in the next one, with a token that is known
by then: they get a token every second step, and the device never waits for them. If they are more than a third, the
scheduler waits for the running step instead. When a pending token ends its sequence after all, or changes how the next
one is drawn, the scheduler drops what the step drew. So the tokens are the same as without looking ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf

from antiphon.engine.worker.blocks import BlockPool
from antiphon.engine.worker.sequence import Sequence
from antiphon.step import PENDING, SampleSpec, ScheduledSequence, StepPlan

MOST_IN_A_ROW = 8  # after that, a step is planned with all that is known, if somebody waits or drafts may pay
# For each sequence that is left out, at least this many must be in the plan. A step without looking ahead is longer by
# what the host does, so leaving out half of the sequences could yield fewer tokens than waiting.
LEAST_INCLUDED = 2


def draws_as_planned(sequence: Sequence, entry: ScheduledSequence, eos_token_ids: SequenceOf[int]) -> bool:
    """Whether the token that a plan draws after a pending one is the one that the sequence needs.

    Every token before it is known now.
    """
    if entry.num_computed_tokens != sequence.num_computed_tokens or sequence.gap != 1:
        return False
    return list(entry.samples) == sequence.sample_specs(sequence.num_tokens, eos_token_ids)


class LookAhead:
    """The steps of one scheduler that are planned ahead."""

    def __init__(
        self,
        pool: BlockPool,
        eos_token_ids: tuple[int, ...],
        context_length: int,
        may_be_pending: Callable[[SampleSpec], bool],
    ) -> None:
        """`may_be_pending`: as `AheadRunner.may_be_pending`."""
        self._pool = pool
        self._eos_token_ids = eos_token_ids
        self._context_length = context_length
        self._may_be_pending = may_be_pending
        self._num_in_a_row = 0

    def reset(self) -> None:
        """A step was planned with all that is known."""
        self._num_in_a_row = 0

    def plan(self, running: SequenceOf[Sequence], plan: StepPlan, *, is_wanted_elsewhere: bool) -> StepPlan | None:
        """The step after `plan`, whose tokens are not known yet; None if it is better to wait for them.

        `running`: all running sequences. `is_wanted_elsewhere`: whether others wait, or drafts may pay.
        """
        if is_wanted_elsewhere and self._num_in_a_row >= MOST_IN_A_ROW:
            return None
        entries = {entry.sequence_id: entry for entry in plan.sequences}
        chosen: list[tuple[Sequence, ScheduledSequence]] = []
        num_left_out = 0
        for sequence in running:
            entry = entries.get(sequence.sequence_id)
            if not self._is_one_token_behind(sequence, entry):
                return None
            if entry is None or self._is_dropped(sequence, entry):
                chosen.append((sequence, self._known(sequence)))
            elif self._ends_for_sure(sequence):
                continue
            elif planned := self._pending(sequence, entry):
                chosen.append((sequence, planned))
            else:
                num_left_out += 1
        if not chosen or len(chosen) < LEAST_INCLUDED * num_left_out or not self._give_blocks(chosen):
            return None
        self._num_in_a_row += 1
        return StepPlan([planned for _, planned in chosen])

    def _is_one_token_behind(self, sequence: Sequence, entry: ScheduledSequence | None) -> bool:
        """Whether the sequence computes a single token in this step, or has computed all but one before it."""
        if sequence.is_scoring:
            return False
        if entry is None or entry.token_ids[0] == PENDING:
            return sequence.gap == 1
        return len(entry.samples) == 1 and entry.num_computed_tokens + len(entry.token_ids) == sequence.num_tokens

    def _is_dropped(self, sequence: Sequence, entry: ScheduledSequence) -> bool:
        """Whether the token that the running step draws for it is not the one that it needs, as is known by now."""
        return entry.token_ids[0] == PENDING and not draws_as_planned(sequence, entry, self._eos_token_ids)

    def _ends_for_sure(self, sequence: Sequence) -> bool:
        """Whether the pending token is the last, whatever it is."""
        most = sequence.request.sampling.max_tokens
        return sequence.num_output_tokens + 1 >= most or sequence.num_tokens + 1 >= self._context_length

    def _pending(self, sequence: Sequence, entry: ScheduledSequence) -> ScheduledSequence | None:
        """Computes the token that `entry` draws; None if the plan has to do without this sequence."""
        spec = sequence.spec_ahead(self._eos_token_ids) if self._may_be_pending(entry.samples[0]) else None
        return _entry(sequence, PENDING, sequence.num_tokens, spec) if spec else None

    def _known(self, sequence: Sequence) -> ScheduledSequence:
        """Computes the last known token of a sequence for which the running step yields none."""
        (spec,) = sequence.sample_specs(sequence.num_tokens, self._eos_token_ids)
        return _entry(sequence, sequence.token_ids[-1], sequence.num_tokens - 1, spec)

    def _give_blocks(self, chosen: SequenceOf[tuple[Sequence, ScheduledSequence]]) -> bool:
        """Blocks for the token that each computes, if that takes nothing from others; sets the block tables."""
        missing = [
            self._pool.blocks_for(planned.num_computed_tokens + 1) - len(sequence.block_table)
            for sequence, planned in chosen
        ]
        if sum(count for count in missing if count > 0) > self._pool.num_available:
            return False
        for (sequence, planned), count in zip(chosen, missing, strict=True):
            if count > 0:
                sequence.block_table += self._pool.allocate(count)
            planned.block_table[:] = sequence.block_table
        return True


def _entry(sequence: Sequence, token_id: int, position: int, spec: SampleSpec) -> ScheduledSequence:
    return ScheduledSequence(
        sequence_id=sequence.sequence_id,
        token_ids=[token_id],
        num_computed_tokens=position,
        block_table=[],
        samples=(spec,),
    )
