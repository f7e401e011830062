"""Adds up what engines report: the figures of several engines, and the counts of engines that are gone. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from antiphon.engine.wire import EngineStats

_COUNTS = (
    "step", "busy_seconds", "num_computed_tokens", "num_prefix_queries", "num_prefix_hits", "num_preemptions",
    "num_drafted_tokens", "num_accepted_tokens", "draft_saved_seconds", "draft_spent_seconds",
)  # fmt: skip
_LARGEST = ("step_seconds", "cycle_seconds")  # of several engines, the slowest one's
_FIELDS = tuple(field.name for field in msgspec.structs.fields(EngineStats))


def total(stats: Iterable[EngineStats]) -> EngineStats:
    """Engines as if they were one: everything is added up, except for durations, of which the longest is taken."""
    each = list(stats)
    values = {}
    for name in _FIELDS:
        combine = max if name in _LARGEST else sum
        values[name] = combine([getattr(one, name) for one in each] or [0])
    return EngineStats(**values)


def counted(stats: EngineStats) -> EngineStats:
    """What is left of an engine's figures when it is gone: the counts, which only grow."""
    return EngineStats(**{name: getattr(stats, name) for name in _COUNTS})
