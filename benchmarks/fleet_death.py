"""What the death of an engine costs: requests moved, tokens computed again, and how long their streams pause.

Import this module only after `virtual_time.install`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from fleet_simulation import SimulatedClient
from fleet_traffic import Seen, Users


@dataclass(slots=True)
class Moved:
    """A request that an engine had when it died."""

    wire_id: str
    seen: Seen
    known_tokens: int  # of its prompt and its answer, when the engine died
    had_tokens: int  # of its answer

    def pause(self, at: float) -> float | None:
        """Seconds from the death to its next token; None: it had none before, or got none later."""
        later = (each for each in self.seen.arrivals if each > at)
        return next((each - at for each in later), None) if self.had_tokens else None


class Death:
    """One engine dies, as after SIGKILL."""

    def __init__(self) -> None:
        self.at = 0.0
        self.moved: list[Moved] = []

    def strike(self, client: SimulatedClient, users: Users) -> None:
        """Kill the engine that has the median number of requests."""
        self.at = time.monotonic()
        engines = sorted(client.processes.values(), key=lambda engine: engine.num_requests)
        for unfinished in engines[len(engines) // 2].die():
            seen = users.streams[unfinished.request.request_id]
            self.moved.append(Moved(unfinished.wire_id, seen, unfinished.num_tokens, len(seen.tokens)))

    def figures(self, client: SimulatedClient) -> dict[str, Any]:
        """What it cost, at the end of the simulation."""
        found = [(each, client.num_found(each.wire_id)) for each in self.moved]
        pauses = sorted(pause for each in self.moved if (pause := each.pause(self.at)) is not None)
        return {
            "requests": len(self.moved),
            "lost": sum(bool(each.seen.error) for each in self.moved),
            "known_tokens": sum(each.known_tokens for each in self.moved),
            "recomputed_tokens": sum(each.known_tokens - tokens for each, tokens in found if tokens is not None),
            "streams": len(pauses),
            "pause_p50": pauses[len(pauses) // 2] if pauses else None,
            "pause_max": pauses[-1] if pauses else None,
        }
