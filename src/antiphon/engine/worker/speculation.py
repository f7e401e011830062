"""Several tokens of a sequence in one step: drafts are added to a plan, and what the model confirmed is counted.

Each drafted token is computed like a known one, and the token after it is drawn as it would be without drafts, with
its own random numbers, masks and biases. A draft is right as far as it equals what was drawn; what comes after the
first wrong token is dropped. So the tokens of every request, and their log-probabilities, are those without drafts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from antiphon.engine.worker.drafting import MOST, Draft, Drafting
from antiphon.engine.worker.drafts import RUNS, Memory
from antiphon.engine.worker.sequence import Proposal
from antiphon.engine.worker.sequence import Sequence as Generated


@dataclass(slots=True)
class SpeculationCounts:
    """What only grows, for the metrics."""

    num_drafted_tokens: int = 0  # verified
    num_accepted_tokens: int = 0


class Speculation:
    """Drafts of one scheduler's sequences."""

    def __init__(self, max_rows: int, memory: Memory | None = None, drafting: Drafting | None = None) -> None:
        """`max_rows`: tokens that a step may compute."""
        self._max_rows = max_rows
        self._memory = memory or Memory()
        self._drafting = drafting or Drafting()
        self._is_decoding = False  # whether the running step computes nothing but last tokens, and drafts
        self._drafts: dict[int, tuple[Draft, Proposal]] = {}  # of the running step, by sequence
        self.counts = SpeculationCounts()

    def plan(
        self,
        sequences: Sequence[Generated],
        most_of: Callable[[Generated, int], int],
        eos_token_ids: Sequence[int],
        context_length: int,
    ) -> None:
        """Draft for a step in which these sequences compute their last token, and nothing else is computed.

        `most_of` says for how many of a wished number of tokens a sequence has room.
        """
        self._drafts = {}
        self._is_decoding = bool(sequences)
        if not sequences or not self._drafting.may_pay(len(sequences)):
            return
        found = []
        for sequence in sequences:
            guess = self._memory.guess(sequence.sequence_id, sequence.request.cache_salt, sequence.token_ids)
            proposal = sequence.propose(guess.token_ids, MOST, eos_token_ids, context_length)
            if proposal.token_ids:
                found.append((sequence, Draft(sequence.sequence_id, guess.run, proposal.is_decided), proposal))
        lengths = self._drafting.lengths([draft for _, draft, _ in found], len(sequences), self._max_rows)
        for (sequence, draft, proposal), length in zip(found, lengths, strict=True):
            if length and (length := most_of(sequence, length)):
                proposal.cut(length)
                self._drafts[sequence.sequence_id] = draft, proposal

    @property
    def is_drafting(self) -> bool:
        """Whether the running step has drafts."""
        return bool(self._drafts)

    def of(self, sequence: Generated) -> Proposal:
        """What is drafted for a sequence in the running step."""
        return self._drafts[sequence.sequence_id][1] if sequence.sequence_id in self._drafts else Proposal()

    def observe_step(self, num_rows: int, seconds: float) -> None:
        """Learn from the step that was computed."""
        if self._is_decoding:
            self._drafting.costs.observe(num_rows, seconds)

    def observe_draft(self, sequence: Generated, num_right: int) -> None:
        """Learn how many tokens of a sequence's draft were right."""
        if sequence.sequence_id in self._drafts:
            draft, proposal = self._drafts[sequence.sequence_id]
            self._drafting.observe(draft, len(proposal.token_ids), num_right)
            self.counts.num_drafted_tokens += len(proposal.token_ids)
            self.counts.num_accepted_tokens += num_right

    def finish(self, sequence: Generated) -> None:
        """A sequence ended; others may draft from its answer."""
        answer = sequence.token_ids[sequence.num_prompt_tokens :]
        self._memory.finish(sequence.sequence_id, sequence.request.cache_salt, answer)
        self._drafting.forget(sequence.sequence_id, (0, *RUNS))
