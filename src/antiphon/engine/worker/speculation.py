"""Computes several tokens of a sequence in one step: adds drafts to a plan, and counts those that were right.

Each drafted token is computed like a known one, and the token after it is drawn as it would be without drafts, with
its own random numbers, masks, penalties and biases. A drafted token is right if it equals the token that was drawn.
Everything after the first wrong one is dropped. So the tokens of every request, and their log-probabilities, are the
same with and without drafts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from antiphon.engine.worker.accuracy import Draft, slots_of
from antiphon.engine.worker.drafting import MOST, Drafting
from antiphon.engine.worker.drafts import Memory
from antiphon.engine.worker.sequence import Proposal
from antiphon.engine.worker.sequence import Sequence as Generated


@dataclass(slots=True)
class SpeculationCounts:
    """Totals for the metrics."""

    num_drafted_tokens: int = 0  # verified
    num_accepted_tokens: int = 0
    saved_seconds: float = 0.0  # what the accepted tokens would have cost as steps of their own, estimated
    spent_seconds: float = 0.0  # by how much steps with drafts took longer, estimated


@dataclass(slots=True)
class _Guessed:
    """A sequence, and tokens that may come next."""

    sequence: Generated
    draft: Draft
    token_ids: list[int]


class Speculation:
    """The drafts of one scheduler's sequences."""

    def __init__(self, max_rows: int, memory: Memory | None = None, drafting: Drafting | None = None) -> None:
        """`max_rows`: tokens that a step may compute."""
        self._max_rows = max_rows
        self._memory = memory or Memory()
        self._drafting = drafting or Drafting()
        self._num_decoding = 0  # sequences in the running step, if it computes only last tokens and drafts
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

        `most_of` returns how many of a number of drafted tokens there is room for in a sequence.
        """
        self._drafts = {}
        self._num_decoding = len(sequences)
        if not sequences or not self._drafting.may_pay(len(sequences)):
            return
        guessed = [self._guess(sequence) for sequence in sequences]
        lengths = self._lengths([each.draft for each in guessed])
        found: list[tuple[Generated, Draft, Proposal]] = []
        for each, length in zip(guessed, lengths, strict=True):  # a grammar's masks are computed for these only
            proposal = each.sequence.propose(iter(each.token_ids), length, MOST, eos_token_ids, context_length)
            if proposal.token_ids:
                found.append((each.sequence, _draft_of(each, proposal), proposal))
        lengths = [len(proposal.token_ids) for _, _, proposal in found]
        if any(True in draft.is_decided for _, draft, _ in found):  # these may be longer, by tokens that are certain
            lengths = self._lengths([draft for _, draft, _ in found])
        for (sequence, draft, proposal), length in zip(found, lengths, strict=True):
            if length and (length := most_of(sequence, length)):
                proposal.cut(length)
                self._drafts[sequence.sequence_id] = draft, proposal

    def of(self, sequence: Generated) -> Proposal:
        """What is drafted for a sequence in the running step."""
        return self._drafts[sequence.sequence_id][1] if sequence.sequence_id in self._drafts else Proposal()

    @property
    def is_drafting(self) -> bool:
        """Whether the running step has drafts."""
        return bool(self._drafts)

    def observe_step(self, num_rows: int, seconds: float) -> None:
        """Learn from the step that was computed. `seconds` includes the time since the step before."""
        if not self._num_decoding:
            return
        if self._drafts:
            self.counts.spent_seconds += max(0.0, seconds - self._drafting.costs.predict(self._num_decoding))
        self._drafting.costs.observe(num_rows, seconds)

    def observe_draft(self, sequence: Generated, num_right: int) -> None:
        """Learn how many tokens of a sequence's draft were right."""
        if sequence.sequence_id in self._drafts:
            draft, proposal = self._drafts[sequence.sequence_id]
            self._drafting.observe(draft, len(proposal.token_ids), num_right)
            self.counts.num_drafted_tokens += len(proposal.token_ids)
            self.counts.num_accepted_tokens += num_right
            if self._num_decoding and self._drafting.costs.is_known:
                plain = self._drafting.costs.predict(self._num_decoding)
                self.counts.saved_seconds += num_right * plain / self._num_decoding

    def finish(self, sequence: Generated) -> None:
        """A sequence ended; others may draft from its answer."""
        answer = sequence.token_ids[sequence.num_prompt_tokens :]
        self._memory.finish(sequence.sequence_id, sequence.request.cache_salt, answer)
        self._drafting.forget(sequence.sequence_id)

    def _guess(self, sequence: Generated) -> _Guessed:
        """Tokens that may come next. A grammar may not allow them."""
        guess = self._memory.guess(sequence.sequence_id, sequence.request.cache_salt, sequence.token_ids)
        token_ids = list(islice(guess.token_ids, MOST))
        slots = slots_of(sequence.request.cache_salt, sequence.token_ids, token_ids)
        draft = Draft(sequence.sequence_id, guess.run, [False] * len(token_ids), slots)
        return _Guessed(sequence, draft, token_ids)

    def _lengths(self, drafts: Sequence[Draft]) -> list[int]:
        return self._drafting.lengths(drafts, self._num_decoding, self._max_rows)


def _draft_of(guessed: _Guessed, proposal: Proposal) -> Draft:
    """The draft that a guess became; a grammar may have put other tokens in its place."""
    sequence, token_ids = guessed.sequence, proposal.token_ids
    if token_ids == guessed.token_ids[: len(token_ids)]:
        slots = guessed.draft.slots[: len(token_ids)]
    else:
        slots = slots_of(sequence.request.cache_salt, sequence.token_ids, token_ids)
    return Draft(sequence.sequence_id, guessed.draft.run, proposal.is_decided, slots)
