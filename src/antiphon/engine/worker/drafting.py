"""Decides how many drafted tokens a step verifies: as many as make it faster.

A step with more rows takes longer, but where memory is the limit hardly longer. What each number of rows costs is
measured. So is how often guesses are right, by the number of tokens before a guess that were seen before, for each
sequence and for all. The number of tokens that a step is expected to yield, divided by its time, decides. Now and then
a step goes without drafts, or tries a few more rows than were ever measured, since costs change with the contexts.
Nothing here changes an answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

MOST = 24  # drafted tokens of a sequence in a step
_SHARE_MEMORY = 0.97  # weight of the past, per guess
_COST_MEMORY = 0.9  # per step with the same number of rows
_LINE_MEMORY = 0.98  # per step
_PRIOR = 8.0  # guesses that those of all sequences weigh against a sequence's own
_HOPE = 0.5  # the share of right guesses before anything is known
_ROW = 0.02  # what one more row costs where nothing is known: so much of a step
_ROW_WEIGHT = 4.0  # rows²: how much the steps' rows must vary to outweigh that
_LINE_WEIGHT = 2.0  # steps that the line through all of them counts as, against those with the same number of rows
_HICCUP = 1.5  # a step counts as at most this many times its prediction: the machine may have been busy
_STRIDE = 4  # rows beyond the most that were measured
_PLAIN_EVERY = 64  # at least one of this many steps goes without drafts
_GAIN = 1.05  # drafts must promise this speed-up, which pays for making them
_UNLIKELY = 0.1  # tokens that are less likely to be right are not looked at
_PATIENCE = 4  # rows after the best number that are looked at


@dataclass(slots=True)
class _Line:
    """Seconds ≈ mean + slope · (rows - mean rows), least squares with fading weights."""

    weight: float = 0.0
    rows: float = 0.0  # mean
    seconds: float = 0.0  # mean
    variance: float = 0.0  # sum over the weights
    covariance: float = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        self.weight = _LINE_MEMORY * self.weight + 1
        off_rows, off_seconds = rows - self.rows, seconds - self.seconds
        self.rows += off_rows / self.weight
        self.seconds += off_seconds / self.weight
        self.variance = _LINE_MEMORY * self.variance + off_rows * (rows - self.rows)
        self.covariance = _LINE_MEMORY * self.covariance + off_rows * (seconds - self.seconds)

    def predict(self, rows: int) -> float:
        prior = _ROW * self.seconds
        slope = (self.covariance + _ROW_WEIGHT * prior) / (self.variance + _ROW_WEIGHT)
        return max(self.seconds + max(0.0, slope) * (rows - self.rows), 0.1 * self.seconds)


class RowCosts:
    """Seconds of a step by its rows; for steps in which every sequence computes its last token, and drafts.

    A prediction is the mean of the last steps with this number of rows, and where these were few, drawn towards a line
    through all steps. So one slow step does not keep its number of rows from being tried again.
    """

    def __init__(self) -> None:
        self._line = _Line()
        self._of: dict[int, tuple[float, float]] = {}  # by rows: the weight of the steps, and their mean

    @property
    def is_known(self) -> bool:
        """Whether a step was measured."""
        return bool(self._of)

    @property
    def most_rows(self) -> int:
        """The most rows that were measured."""
        return max(self._of, default=0)

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from a step."""
        if self.is_known:
            seconds = min(seconds, _HICCUP * self.predict(rows))
        weight, mean = self._of.get(rows, (0.0, 0.0))
        weight = _COST_MEMORY * weight + 1
        self._of[rows] = weight, mean + (seconds - mean) / weight
        self._line.observe(rows, seconds)

    def predict(self, rows: int) -> float:
        """Seconds of a step with this number of rows."""
        weight, mean = self._of.get(rows, (0.0, 0.0))
        return (weight * mean + _LINE_WEIGHT * self._line.predict(rows)) / (weight + _LINE_WEIGHT)


@dataclass(slots=True)
class _Share:
    """How many of the last guesses were right."""

    right: float = 0.0
    tried: float = 0.0

    def observe(self, is_right: bool) -> None:
        self.right = _SHARE_MEMORY * self.right + is_right
        self.tried = _SHARE_MEMORY * self.tried + 1

    def value(self, prior: float) -> float:
        return (self.right + _PRIOR * prior) / (self.tried + _PRIOR)


@dataclass(slots=True)
class Draft:
    """Tokens that may follow a sequence's last known one."""

    sequence_id: int
    run: int  # how many tokens before the guess were seen before; 0: a grammar or a thought's limit alone decided
    is_decided: list[bool] = field(default_factory=list)  # of each token, whether nothing else can come

    def runs(self) -> list[int]:
        """For each token, how many before it will have been seen before if it is reached, as one of a few classes."""
        return [(self.run + number).bit_length() if self.run else 0 for number in range(len(self.is_decided))]


class Drafting:
    """Decides how much of each draft is verified."""

    def __init__(self) -> None:
        self.costs = RowCosts()
        self._of_all: defaultdict[int, _Share] = defaultdict(_Share)  # by class of runs
        self._of_one: defaultdict[int, defaultdict[int, _Share]] = defaultdict(lambda: defaultdict(_Share))
        self._steps_with_drafts = 0  # since the last one without

    def may_pay(self, num_sequences: int) -> bool:
        """Whether a step of so many sequences is worth drafts at all; also counts such steps."""
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
        gains = [(gain, index) for index, draft in enumerate(drafts) for gain in self._gains(draft)]
        if len(drafts) > 1:
            gains.sort(reverse=True)  # those of one draft are in order
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
        """Learn from a draft of which so many tokens were verified, and so many from the first on were right."""
        of_one = self._of_one[draft.sequence_id]
        for number, run in enumerate(draft.runs()[: min(num_verified, num_right + 1)]):
            if not draft.is_decided[number]:
                self._of_all[run].observe(number < num_right)
                of_one[run].observe(number < num_right)

    def forget(self, sequence_id: int) -> None:
        """A sequence ended."""
        self._of_one.pop(sequence_id, None)

    def _gains(self, draft: Draft) -> list[float]:
        """For each drafted token, the probability that it and all before it are right."""
        of_one, likely, gains = self._of_one[draft.sequence_id], 1.0, []
        for run, decided in zip(draft.runs(), draft.is_decided, strict=True):
            if not decided:
                likely *= of_one[run].value(self._of_all[run].value(_HOPE))
                if likely < _UNLIKELY:
                    break
            gains.append(likely)
        return gains
