"""Fair shares: how much service each client has had, counted in weighted tokens.

Owns one virtual token counter per client that has a request in the engine or left not long ago (Sheng et al.,
"Fairness in Serving Large Language Models", arXiv 2401.00588). A client is what `GenerateRequest.fairness_id` says: an
API key, an address, or everybody. Its counter grows by what was computed for it:

    (INPUT_WEIGHT · prompt tokens computed + OUTPUT_WEIGHT · tokens generated) / the client's own weight

The client with the lowest counter goes next. Cached prompt tokens cost nothing. Computing tokens again after a
preemption costs nothing either, since the scheduler chose to do that. Idling earns no credit: a client that had nothing
waiting begins at the lowest counter of those that wait. Nor does it pay for what it used while no other client wanted
it: it begins at most `max_lead` above that. When the engine is idle, all counters are forgotten. This module knows
nothing of steps, blocks or places.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from antiphon.engine.service import INPUT_WEIGHT, OUTPUT_WEIGHT
from antiphon.engine.worker.sequence import Sequence

_MAX_ABSENT = 4096  # clients without a request whose counters are kept


@dataclass(slots=True, eq=False)
class Share:
    """One client's counter and its sequences, both lists in the client's own order."""

    counter: float = 0.0  # tokens, weighted
    weight: int = 1  # a client with weight 2 gets twice the service of one with weight 1
    waiting: list[Sequence] = field(default_factory=list)
    running: list[Sequence] = field(default_factory=list)

    @property
    def is_present(self) -> bool:
        return bool(self.waiting or self.running)


class FairShares:
    """The shares of all clients."""

    def __init__(self, max_lead: float) -> None:
        """`max_lead`: how far ahead of the others a client can begin, in weighted tokens."""
        self._max_lead = max_lead
        self._present: dict[str, Share] = {}
        self._absent: dict[str, float] = {}  # counters of clients that left, the longest absent first

    def __iter__(self) -> Iterator[Share]:
        return iter(self._present.values())

    def of(self, sequence: Sequence) -> Share:
        """The share of a sequence's client, which has at least this sequence."""
        return self._present[sequence.request.fairness_id]

    def wait(self, sequence: Sequence) -> None:
        """Queue a sequence, new or preempted."""
        request = sequence.request
        share = self._present.get(request.fairness_id)
        if share is None:
            share = Share(self._absent.pop(request.fairness_id, 0.0))
            self._present[request.fairness_id] = share
        share.weight = request.fairness_weight
        if not share.waiting:
            self._join(share)
        insort(share.waiting, sequence, key=_order)

    def start(self, sequence: Sequence) -> None:
        """Move a sequence from the waiting to the running ones."""
        share = self.of(sequence)
        share.waiting.remove(sequence)
        insort(share.running, sequence, key=_order)

    def stop(self, sequence: Sequence) -> None:
        """Move a running sequence back to the waiting ones."""
        self.of(sequence).running.remove(sequence)
        self.wait(sequence)

    def remove(self, sequence: Sequence) -> bool:
        """Forget a sequence that ended; returns whether it was running."""
        share = self.of(sequence)
        was_running = sequence in share.running
        (share.running if was_running else share.waiting).remove(sequence)
        if not share.is_present:
            self._leave(sequence.request.fairness_id, share)
        return was_running

    def reorder(self, sequence: Sequence) -> None:
        """Put a sequence at its place after its `order` changed."""
        share = self.of(sequence)
        (share.running if sequence in share.running else share.waiting).sort(key=_order)

    def charge(self, sequence: Sequence, *, num_input: int = 0, num_output: int = 0) -> None:
        """Count service that a sequence's client has had."""
        share = self.of(sequence)
        share.counter += (INPUT_WEIGHT * num_input + OUTPUT_WEIGHT * num_output) / share.weight

    def charge_elsewhere(self, fairness_id: str, service: float) -> None:
        """Count service that a client has had from another server, in weighted tokens.

        A client that is not known here, or whose counter would only be compared with its own, pays for nothing.
        """
        if share := self._present.get(fairness_id):
            share.counter += service / share.weight
        elif fairness_id in self._absent:
            self._absent[fairness_id] += service

    def _join(self, share: Share) -> None:
        """Bring the counter of a client that begins to wait near those of the others that do, or of all others."""
        others = [other for other in self if other is not share]
        rivals = [other.counter for other in others if other.waiting] or [other.counter for other in others]
        if rivals:
            least = min(rivals)
            share.counter = min(max(share.counter, least), least + self._max_lead)

    def _leave(self, fairness_id: str, share: Share) -> None:
        """Remember a counter while there are other clients, so that leaving and coming back does not reset it."""
        del self._present[fairness_id]
        if not self._present:
            self._absent.clear()
            return
        self._absent[fairness_id] = share.counter
        if len(self._absent) > _MAX_ABSENT:
            del self._absent[next(iter(self._absent))]


def _order(sequence: Sequence) -> tuple[int, bool, int]:
    return sequence.order
