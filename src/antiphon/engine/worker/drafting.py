"""How many drafted tokens a step verifies: as many as make it faster, by what steps cost and what drafts were worth.

A step with more rows takes longer, on a processor whose memory is the limit hardly so. What each number of rows costs
is measured, and so is how often a guess was right, by the run of tokens that led to it and for each sequence. The
tokens that a step can be expected to yield, divided by its time, decide. Now and then a step goes without drafts, or
tries a few more rows than were ever measured, since costs change with the contexts. Nothing here changes an answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

MOST = 12  # drafted tokens of a sequence in a step
_MEMORY = 0.9  # weight of the past, per observation
_PRIOR = 4.0  # observations that those of all sequences weigh against a sequence's own
_HOPE = 0.5  # the share of right guesses before anything is known
_ROW = 0.02  # what one more row costs where nothing is known: so much of a step
_STRIDE = 4  # rows beyond the most that were measured
_PLAIN_EVERY = 64  # of so many steps with drafts, one goes without


class RowCosts:
    """Seconds of a step by its rows; for steps in which every sequence computes its last token, and drafts."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    @property
    def is_known(self) -> bool:
        return bool(self._seconds)

    @property
    def most_rows(self) -> int:
        """The most rows that were measured."""
        return max(self._seconds, default=0)

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from a step."""
        known = self._seconds.get(rows)
        if known is not None:
            seconds = min(seconds, 3 * known)  # the machine may have been busy elsewhere
        self._seconds[rows] = seconds if known is None else _MEMORY * known + (1 - _MEMORY) * seconds

    def predict(self, rows: int) -> float:
        """Seconds of a step of so many rows: as measured, or in between, or a little more for each further row."""
        if (known := self._seconds.get(rows)) is not None:
            return known
        below = max((each for each in self._seconds if each < rows), default=0)
        above = min((each for each in self._seconds if each > rows), default=0)
        if not below:
            return self._seconds[above]
        if not above:
            return self._seconds[below] * (1 + _ROW * (rows - below))
        share = (rows - below) / (above - below)
        return self._seconds[below] + share * (self._seconds[above] - self._seconds[below])


@dataclass(slots=True)
class _Share:
    """How many of the last guesses were right."""

    right: float = 0.0
    tried: float = 0.0

    def observe(self, num_right: int, num_tried: int) -> None:
        self.right = _MEMORY * self.right + num_right
        self.tried = _MEMORY * self.tried + num_tried

    def value(self, prior: float) -> float:
        return (self.right + _PRIOR * prior) / (self.tried + _PRIOR)


@dataclass(slots=True)
class Draft:
    """Tokens that may follow a sequence's last known one."""

    sequence_id: int
    run: int  # the tokens that led to the guess; 0: a grammar or a thought's limit alone did
    is_decided: list[bool] = field(default_factory=list)  # of each token, whether nothing else can come


class Drafting:
    """Decides how much of each draft is verified."""

    def __init__(self) -> None:
        self.costs = RowCosts()
        self._of_all: defaultdict[int, _Share] = defaultdict(_Share)  # by run
        self._of_one: defaultdict[tuple[int, int], _Share] = defaultdict(_Share)  # by sequence and run
        self._num_drafting_steps = 0

    def may_pay(self, num_sequences: int) -> bool:
        """Whether a step of so many sequences is worth drafts at all; also counts such steps."""
        if not self.costs.is_known:
            return False
        self._num_drafting_steps += 1
        if self._num_drafting_steps % _PLAIN_EVERY == 0:
            return False
        plain, one_more = self.costs.predict(num_sequences), self.costs.predict(num_sequences + 1)
        return (num_sequences + 1) * plain > num_sequences * one_more

    def lengths(self, drafts: Sequence[Draft], num_sequences: int, max_rows: int) -> list[int]:
        """How many tokens of each draft to verify, in a step of `num_sequences` rows without any."""
        gains = sorted(self._gains(drafts), reverse=True)
        most = min(len(gains), max_rows - num_sequences, max(0, self.costs.most_rows + _STRIDE - num_sequences))
        best, best_rate, expected = 0, num_sequences / self.costs.predict(num_sequences), float(num_sequences)
        for count, (gain, _) in enumerate(gains[:most], start=1):
            expected += gain
            rate = expected / self.costs.predict(num_sequences + count)
            if rate > best_rate:
                best, best_rate = count, rate
        lengths = [0] * len(drafts)
        for _, index in gains[:best]:
            lengths[index] += 1
        return lengths

    def observe(self, draft: Draft, num_verified: int, num_right: int) -> None:
        """Learn from a draft of which so many tokens were verified, and so many from the first on were right."""
        guessed = [not decided for decided in draft.is_decided[: min(num_verified, num_right + 1)]]
        right = sum(guessed[:num_right])
        for share in (self._of_all[draft.run], self._of_one[draft.sequence_id, draft.run]):
            share.observe(right, sum(guessed))

    def forget(self, sequence_id: int, runs: Iterable[int]) -> None:
        """A sequence ended."""
        for run in runs:
            self._of_one.pop((sequence_id, run), None)

    def _gains(self, drafts: Sequence[Draft]) -> Iterable[tuple[float, int]]:
        """For each drafted token, the probability that it and all before it are right, and its draft's index."""
        for index, draft in enumerate(drafts):
            share = self._of_one[draft.sequence_id, draft.run].value(self._of_all[draft.run].value(_HOPE))
            likely = 1.0
            for decided in draft.is_decided:
                likely *= 1.0 if decided else share
                yield likely, index
