"""The order among sequences: who starts next, who is preempted, who computes first. The scheduler asks, and acts.

Owns the policy. Sequences are ordered by priority, then those of the flex tier after the others, then by score, then by
arrival. A score is the client's virtual token counter (`shares`) plus a quantum for each place in the client's own
order, as if each of its sequences up to this one had already generated a few tokens more. So the order alternates
between clients, and with equal counters they share the places evenly. With one client, which is all there is without
API keys, the order is first come, first served.

A waiting sequence takes the place of a running one only if it comes before it by more than a quantum plus what
computing the preempted tokens again would cost, so that clients do not keep preempting each other. From this follows a
bound: while clients have something waiting in one priority and tier, their counters differ by at most `max_lead`. So in
any time in which two of them have, neither gets more than twice that more than the other (times its weight).

A flex sequence counts as an ordinary one after `flex_steps` steps, so that it does not starve. There is no clock here.
"""

from __future__ import annotations

from antiphon.engine.service import INPUT_WEIGHT, OUTPUT_WEIGHT
from antiphon.engine.worker.sequence import Sequence
from antiphon.engine.worker.shares import FairShares, Share
from antiphon.request import ServiceTier

QUANTUM = 32 * OUTPUT_WEIGHT  # weighted tokens: what a running sequence is expected to use before the next change
FLEX_STEPS = 1000  # a few minutes on a busy machine

Rank = tuple[int, bool, float, int]  # priority, whether it is flex, score, arrival


def max_lead(max_running: int, max_batch_tokens: int, context_length: int) -> float:
    """How far, in weighted tokens, one waiting client's counter can be ahead of another's.

    The lead at which the last of its running sequences is preempted, and what one step can add to it.
    """
    preempted = (max_running + 1) * QUANTUM + INPUT_WEIGHT * context_length
    one_step = INPUT_WEIGHT * max_batch_tokens + OUTPUT_WEIGHT * max_running
    return preempted + one_step


class Turns:
    """The sequences of an engine, and their order."""

    def __init__(self, lead: float, max_batch_tokens: int, flex_steps: int = FLEX_STEPS) -> None:
        """`lead`: as computed by `max_lead`."""
        self._shares = FairShares(lead)
        self._max_batch_tokens = max_batch_tokens
        self._flex_steps = flex_steps
        self._step = 0
        self._flex: dict[Sequence, int] = {}  # the step at which each becomes an ordinary one; in order of arrival

    @property
    def num_running(self) -> int:
        return sum(len(share.running) for share in self._shares)

    @property
    def num_waiting(self) -> int:
        return sum(len(share.waiting) for share in self._shares)

    @property
    def running(self) -> list[Sequence]:
        """The running sequences in order, in a new list."""
        ranked = [
            (_rank(share, sequence, place), sequence)
            for share in self._shares
            for place, sequence in enumerate(share.running, start=1)
        ]
        return [sequence for _, sequence in sorted(ranked)]  # no two ranks are equal

    @property
    def waiting(self) -> list[Sequence]:
        """The waiting sequences in the order in which they would start if nothing changed, in a new list."""
        ranked = [
            (_rank(share, sequence, place), sequence)
            for share in self._shares
            for place, sequence in enumerate(share.waiting, start=len(share.running) + 1)
        ]
        return [sequence for _, sequence in sorted(ranked)]

    @property
    def first_waiting(self) -> Sequence | None:
        """The first of `waiting`."""
        heads = [(_rank(share, share.waiting[0], _next_place(share)), share) for share in self._shares if share.waiting]
        return min(heads)[1].waiting[0] if heads else None

    @property
    def last_running(self) -> Sequence | None:
        """The last of `running`, which is preempted first."""
        tails = [
            (_rank(share, share.running[-1], len(share.running)), share) for share in self._shares if share.running
        ]
        return max(tails)[1].running[-1] if tails else None

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        if sequence.request.service_tier is ServiceTier.FLEX:
            sequence.is_deferred = True
            self._flex[sequence] = self._step + self._flex_steps
        self._shares.wait(sequence)

    def start(self, sequence: Sequence) -> None:
        """A waiting sequence runs from now on."""
        self._shares.start(sequence)

    def stop(self, sequence: Sequence) -> None:
        """A running sequence was preempted and waits again."""
        self._shares.stop(sequence)

    def remove(self, sequence: Sequence) -> bool:
        """Forget a sequence that ended; returns whether it was running."""
        self._flex.pop(sequence, None)
        return self._shares.remove(sequence)

    def charge(self, sequence: Sequence, *, num_input: int = 0, num_output: int = 0) -> None:
        """Count tokens that were computed for a sequence for the first time, and tokens generated."""
        self._shares.charge(sequence, num_input=num_input, num_output=num_output)

    def charge_elsewhere(self, fairness_id: str, service: float) -> None:
        """Count service that a client has had from another server, in weighted tokens."""
        self._shares.charge_elsewhere(fairness_id, service)

    def begin_step(self) -> None:
        """Count a step; flex sequences that have waited or run long enough become ordinary ones."""
        self._step += 1
        due = [sequence for sequence, step in self._flex.items() if step <= self._step]
        for sequence in due:
            del self._flex[sequence]
            sequence.is_deferred = False
            self._shares.reorder(sequence)

    def gives_way(self, running: Sequence, waiting: Sequence, num_recomputed: int) -> bool:
        """Whether `running`, the last of those, is to be preempted for `waiting`, the first of those.

        `num_recomputed`: how many tokens the preempted sequence would have to compute again.
        """
        if waiting.request.priority != running.request.priority:
            return False
        if waiting.is_deferred != running.is_deferred:
            return running.is_deferred
        of_running, of_waiting = self._shares.of(running), self._shares.of(waiting)
        margin = QUANTUM + INPUT_WEIGHT * num_recomputed
        last, first = _score(of_running, len(of_running.running)), _score(of_waiting, _next_place(of_waiting))
        return first + margin < last

    def is_level(self, first: Sequence, other: Sequence) -> bool:
        """Whether `other` may be served before `first` now and then, although `first` comes before it."""
        if (first.request.priority, first.is_deferred) != (other.request.priority, other.is_deferred):
            return False
        return self._shares.of(other).counter <= self._shares.of(first).counter + self._max_batch_tokens

    def check(self) -> None:
        """Assert that every client's sequences are in order; for idle moments and tests."""
        for share in self._shares:
            assert share.is_present, "a client without sequences has a share"
            for queue in (share.running, share.waiting):
                assert queue == sorted(queue, key=lambda sequence: sequence.order), "not in order"
            every = [*share.running, *share.waiting]
            for kind in {_kind(sequence) for sequence in every}:
                arrived = [sequence.sequence_id for sequence in every if _kind(sequence) == kind]
                assert arrived == sorted(arrived), "not first come, first served"
        rest = [sequence for sequence in [*self.running, *self.waiting] if sequence.is_deferred]
        assert set(rest) == set(self._flex), "a flex sequence is lost, or one is kept that ended"


def _rank(share: Share, sequence: Sequence, place: int) -> Rank:
    return sequence.request.priority, sequence.is_deferred, _score(share, place), sequence.sequence_id


def _score(share: Share, place: int) -> float:
    """The counter, and a quantum for each of the client's sequences up to the one at `place` (1 is the first)."""
    return share.counter + place * QUANTUM / share.weight


def _next_place(share: Share) -> int:
    return len(share.running) + 1


def _kind(sequence: Sequence) -> tuple[int, ServiceTier]:
    return sequence.request.priority, sequence.request.service_tier
