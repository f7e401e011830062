"""Plans the step after the running one, before the running one's tokens are known.

On a device that computes by itself, the next step can be prepared and submitted while the device works. Such a plan
computes the token that the running step draws for each sequence, whatever it is (`step.PENDING`), and draws the one
after it. Owns the conditions under which that is worth planning: each sequence needs one token, and nothing about how
it is drawn depends on the pending token as far as can be foreseen. Where the pending token changes that after all, or
ends its sequence, the scheduler drops what the step drew. So the tokens are those without looking ahead.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

from antiphon.engine.worker.blocks import BlockPool
from antiphon.engine.worker.sequence import Sequence
from antiphon.step import PENDING, SampleSpec, ScheduledSequence, StepPlan

MOST_IN_A_ROW = 8  # then a step is planned with all that is known, if somebody waits or drafts may pay


def draws_as_planned(sequence: Sequence, entry: ScheduledSequence, eos_token_ids: SequenceOf[int]) -> bool:
    """Whether the token that a plan draws after a pending one is the one that the sequence needs.

    Every token before it is known now.
    """
    if entry.num_computed_tokens != sequence.num_computed_tokens or sequence.gap != 1:
        return False
    return list(entry.samples) == sequence.sample_specs(sequence.num_tokens, eos_token_ids)


class LookAhead:
    """The steps of one scheduler that are planned ahead."""

    def __init__(self, pool: BlockPool, eos_token_ids: tuple[int, ...], context_length: int) -> None:
        self._pool = pool
        self._eos_token_ids = eos_token_ids
        self._context_length = context_length
        self._num_in_a_row = 0

    def reset(self) -> None:
        """A step was planned with all that is known."""
        self._num_in_a_row = 0

    def plan(self, running: SequenceOf[Sequence], plan: StepPlan, *, is_wanted_elsewhere: bool) -> StepPlan | None:
        """The step after `plan`, whose tokens are not known yet; None where it is better to wait for them.

        `running`: all running sequences. `is_wanted_elsewhere`: whether others wait, or drafts may pay.
        """
        if is_wanted_elsewhere and self._num_in_a_row >= MOST_IN_A_ROW:
            return None
        entries = {entry.sequence_id: entry for entry in plan.sequences}
        chosen: list[tuple[Sequence, SampleSpec]] = []
        for sequence in running:
            entry = entries.get(sequence.sequence_id)
            if entry is None or not self._reaches_its_end(sequence, entry):
                return None
            if self._ends_for_sure(sequence):
                continue
            spec = sequence.spec_ahead(self._eos_token_ids)
            if spec is None:
                return None
            chosen.append((sequence, spec))
        if not chosen or not self._give_blocks([sequence for sequence, _ in chosen]):
            return None
        self._num_in_a_row += 1
        return StepPlan([_entry(sequence, spec) for sequence, spec in chosen])

    def _reaches_its_end(self, sequence: Sequence, entry: ScheduledSequence) -> bool:
        """Whether the running step draws one token after all that the sequence knows, as it needs it."""
        if len(entry.samples) != 1 or sequence.is_scoring:
            return False
        if entry.token_ids[0] == PENDING:
            return draws_as_planned(sequence, entry, self._eos_token_ids)
        return entry.num_computed_tokens + len(entry.token_ids) == sequence.num_tokens

    def _ends_for_sure(self, sequence: Sequence) -> bool:
        """Whether the pending token is the last, whatever it is."""
        most = sequence.request.sampling.max_tokens
        return sequence.num_output_tokens + 1 >= most or sequence.num_tokens + 1 >= self._context_length

    def _give_blocks(self, sequences: SequenceOf[Sequence]) -> bool:
        """Blocks for one more token of each, if that takes nothing from others."""
        missing = [self._pool.blocks_for(sequence.num_tokens + 1) - len(sequence.block_table) for sequence in sequences]
        if sum(missing) > self._pool.num_available:
            return False
        for sequence, count in zip(sequences, missing, strict=True):
            if count > 0:
                sequence.block_table += self._pool.allocate(count)
        return True


def _entry(sequence: Sequence, spec: SampleSpec) -> ScheduledSequence:
    return ScheduledSequence(
        sequence_id=sequence.sequence_id,
        token_ids=[PENDING],
        num_computed_tokens=sequence.num_tokens,
        block_table=list(sequence.block_table),
        samples=(spec,),
    )
