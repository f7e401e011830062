"""What engines have done since the client was created: counts that survive the engines they come from.

An engine counts from its own start, and its counts are lost when it dies or is removed. This adds up what each step
report says more than the one before, so the sums only grow.
"""

from __future__ import annotations

from dataclasses import dataclass

from antiphon.engine.wire import EngineStats


@dataclass(slots=True)
class WorkDone:
    """Sums over all engines, dead or alive."""

    num_steps: int = 0
    busy_seconds: float = 0.0  # in steps
    num_computed_tokens: int = 0
    num_prefix_queries: int = 0  # tokens looked up in the prefix cache
    num_prefix_hits: int = 0  # of those, tokens found
    num_preemptions: int = 0

    def add(self, before: EngineStats, after: EngineStats) -> None:
        """Add what one engine did between two of its reports; `before` its first one, that is `EngineStats()`."""
        num_steps = after.step - before.step
        self.num_steps += num_steps
        if num_steps:  # a report without a step repeats the duration of the last one
            self.busy_seconds += after.step_seconds
        self.num_computed_tokens += after.num_computed_tokens - before.num_computed_tokens
        self.num_prefix_queries += after.num_prefix_queries - before.num_prefix_queries
        self.num_prefix_hits += after.num_prefix_hits - before.num_prefix_hits
        self.num_preemptions += after.num_preemptions - before.num_preemptions
