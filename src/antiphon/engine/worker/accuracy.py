"""Learns how likely a drafted token is to be right.

Two things are known of a drafted token before the model has seen it. The first is how many tokens before it were seen
before: the longer the match, the better the guess. This is learned in a few classes, for all sequences and for each
one, since some texts repeat themselves more than others. The second is the token itself and the two before it: forms
have the same labels and different values, so a copied value is usually wrong, and the label after it right. This is
learned in a hash table of fixed size. Nothing here changes an answer.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

NUM_SLOTS = 1 << 14  # for tokens in their contexts; two that share a slot share their estimate
_MEMORY = 0.97  # weight of the past, per guess of the same class or slot
_PRIOR = 8.0  # guesses that those of all sequences count as, against a sequence's own
_SLOT_PRIOR = 3.0  # guesses that those of all tokens count as, against those of a slot
_HOPE = 0.5  # the fraction of right guesses before anything is known


@dataclass(slots=True)
class Draft:
    """Tokens that may follow a sequence's last known one."""

    sequence_id: int
    run: int  # tokens before the guess that were seen before; 0: decided by a grammar or the limit of a thought
    is_decided: list[bool] = field(default_factory=list)  # of each token, whether nothing else can come
    slots: Sequence[int] = ()  # of each token, by itself and the two before it (`slots_of`); empty: not known

    def runs(self) -> list[int]:
        """For each token, how many before it will have been seen before if it is reached, as one of a few classes."""
        return [(self.run + number).bit_length() if self.run else 0 for number in range(len(self.is_decided))]


@dataclass(slots=True)
class _Share:
    """How many of the last guesses were right."""

    right: float = 0.0
    tried: float = 0.0

    def observe(self, is_right: bool) -> None:
        self.right = _MEMORY * self.right + is_right
        self.tried = _MEMORY * self.tried + 1

    def value(self, prior: float) -> float:
        return (self.right + _PRIOR * prior) / (self.tried + _PRIOR)


class TokenTable:
    """How many of the last guesses of a token in its context were right."""

    def __init__(self) -> None:
        self._right = array("f", bytes(4 * NUM_SLOTS))
        self._tried = array("f", bytes(4 * NUM_SLOTS))

    @property
    def num_bytes(self) -> int:
        """Size of the table."""
        return 2 * self._right.itemsize * NUM_SLOTS

    def observe(self, slot: int, is_right: bool) -> None:
        self._right[slot] = _MEMORY * self._right[slot] + is_right
        self._tried[slot] = _MEMORY * self._tried[slot] + 1

    def value(self, slot: int, prior: float) -> float:
        return (self._right[slot] + _SLOT_PRIOR * prior) / (self._tried[slot] + _SLOT_PRIOR)


def slots_of(salt: str, known: Sequence[int], token_ids: Sequence[int]) -> list[int]:
    """The slots of drafted tokens that follow `known`. Texts with different salts have different slots for a token."""
    seed, text = hash(salt), (-1, *known[-2:], *token_ids)[-len(token_ids) - 2 :]
    return [hash((seed, *each)) % NUM_SLOTS for each in zip(text, text[1:], token_ids, strict=False)]


class Accuracy:
    """Estimates whether drafted tokens are right, from what became of earlier ones."""

    def __init__(self) -> None:
        self._of_all: defaultdict[int, _Share] = defaultdict(_Share)  # by class of runs
        self._of_one: defaultdict[int, defaultdict[int, _Share]] = defaultdict(lambda: defaultdict(_Share))
        self._tokens = TokenTable()

    def likelihoods(self, draft: Draft, least: float) -> list[float]:
        """For each drafted token, the probability that it and all before it are right; ends below `least`."""
        of_one, likely, found = self._of_one[draft.sequence_id], 1.0, []
        for number, run in enumerate(draft.runs()):
            if not draft.is_decided[number]:
                right = of_one[run].value(self._of_all[run].value(_HOPE))
                likely *= self._tokens.value(draft.slots[number], right) if draft.slots else right
                if likely < least:
                    break
            found.append(likely)
        return found

    def observe(self, draft: Draft, num_verified: int, num_right: int) -> None:
        """Learn from a draft of which `num_verified` tokens were verified, and the first `num_right` were right."""
        of_one = self._of_one[draft.sequence_id]
        for number, run in enumerate(draft.runs()[: min(num_verified, num_right + 1)]):
            if not draft.is_decided[number]:
                is_right = number < num_right
                self._of_all[run].observe(is_right)
                of_one[run].observe(is_right)
                if draft.slots:
                    self._tokens.observe(draft.slots[number], is_right)

    def forget(self, sequence_id: int) -> None:
        """A sequence ended."""
        self._of_one.pop(sequence_id, None)
