"""Decides how many drafted tokens a step verifies: the number that promises the most tokens per second.

A step with more rows takes longer. Where memory is the limit, it takes hardly longer. What each number of rows costs is
measured (`row_costs`), and so is how often guesses are right (`accuracy`). Now and then a step has no drafts, or a few
more rows than were ever measured, so that both numbers stay up to date. Nothing here changes an answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.engine.worker.accuracy import Accuracy, Draft
from antiphon.engine.worker.row_costs import RowCosts

MOST = 24  # drafted tokens of a sequence in a step
_STRIDE = 4  # rows beyond the most that were measured
_PLAIN_EVERY = 64  # at least one of this many steps has no drafts
_GAIN = 1.05  # drafts must promise this speed-up, which pays for making them
_UNLIKELY = 0.1  # tokens that are less likely to be right are not considered
_PATIENCE = 4  # rows after the best number that are considered


class Drafting:
    """Decides how much of each draft is verified."""

    def __init__(self) -> None:
        self.costs = RowCosts()
        self._accuracy = Accuracy()
        self._steps_with_drafts = 0  # since the last one without

    def may_pay(self, num_sequences: int) -> bool:
        """Whether drafts may pay in a step of so many sequences; also counts such steps."""
        if not self.costs.is_known:
            return False
        self._steps_with_drafts += 1
        if self._steps_with_drafts >= _PLAIN_EVERY:
            self._steps_with_drafts = 0
            return False
        plain, one_more = self.costs.predict(num_sequences), self.costs.predict(num_sequences + 1)
        return (num_sequences + 1) * plain > _GAIN * num_sequences * one_more

    def lengths(self, drafts: Sequence[Draft], num_sequences: int, max_rows: int) -> list[int]:
        """How many tokens of each draft to verify, in a step of `num_sequences` rows without any."""
        gains = [
            (gain, index)
            for index, draft in enumerate(drafts)
            for gain in self._accuracy.likelihoods(draft, least=_UNLIKELY)
        ]
        if len(drafts) > 1:
            gains.sort(reverse=True)  # those of one draft stay in order
        most = min(len(gains), max_rows - num_sequences, max(0, self.costs.most_rows + _STRIDE - num_sequences))
        best, expected = 0, float(num_sequences)
        best_rate = _GAIN * num_sequences / self.costs.predict(num_sequences)
        for count, (gain, _) in enumerate(gains[:most], start=1):
            expected += gain
            rate = expected / self.costs.predict(num_sequences + count)
            if rate > best_rate:
                best, best_rate = count, rate
            elif count > best + _PATIENCE:
                break
        if not best:
            self._steps_with_drafts = 0
        lengths = [0] * len(drafts)
        for _, index in gains[:best]:
            lengths[index] += 1
        return lengths

    def observe(self, draft: Draft, num_verified: int, num_right: int) -> None:
        """Learn from a draft of which `num_verified` tokens were verified, and the first `num_right` were right."""
        self._accuracy.observe(draft, num_verified, num_right)

    def forget(self, sequence_id: int) -> None:
        """A sequence ended."""
        self._accuracy.forget(sequence_id)
