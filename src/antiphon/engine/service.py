"""Service: what was computed for a client, in weighted tokens. Shared by the engine's fair shares and the front.

Owns the weights, and the count of each client's service at this server, which other servers of the same clients ask
for (`antiphon.peers`).
"""

from __future__ import annotations

from collections import OrderedDict

INPUT_WEIGHT = 1  # of a computed prompt token
OUTPUT_WEIGHT = 2  # of a generated token; a step computes many prompt tokens in the time of a few of these
MAX_CLIENTS = 1024  # whose service is kept; with more, those that had none for the longest time are forgotten


class ServiceCounts:
    """The service that each client has had here since the server started. Counts only grow."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()  # by client, the most recently served last

    def add(self, client: str, *, num_input: int = 0, num_output: int = 0) -> None:
        """Count tokens that were computed for a client."""
        service = INPUT_WEIGHT * num_input + OUTPUT_WEIGHT * num_output
        self._counts[client] = self._counts.get(client, 0) + service
        self._counts.move_to_end(client)
        if len(self._counts) > MAX_CLIENTS:
            self._counts.popitem(last=False)

    def snapshot(self) -> dict[str, int]:
        """The counts now, by client."""
        return dict(self._counts)
