"""Figures of several engines as if they were one, and what stays of engines that are gone."""

from __future__ import annotations

from antiphon.engine.fleet.totals import counted, total
from antiphon.engine.wire import EngineStats

ONE = EngineStats(running=2, blocks_in_use=5, step=7, step_seconds=0.5, busy_seconds=3.0, num_preemptions=1)
OTHER = EngineStats(running=1, blocks_in_use=1, step=2, step_seconds=0.25, busy_seconds=1.0, num_prefix_hits=4)


def test_figures_are_added_up_and_of_durations_the_longest_is_taken():
    assert total([ONE, OTHER]) == EngineStats(
        running=3, blocks_in_use=6, step=9, step_seconds=0.5, busy_seconds=4.0, num_prefix_hits=4, num_preemptions=1
    )
    assert total([]) == EngineStats()


def test_of_an_engine_that_is_gone_what_it_has_done_stays():
    assert counted(ONE) == EngineStats(step=7, busy_seconds=3.0, num_preemptions=1)
    assert total([counted(ONE), OTHER]).busy_seconds == 4.0
