"""The ladder, in virtual time: one level at a time, never back and forth, always down once the load is over."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.degrade_rules import DEFAULT_RULES, DegradeRules, Shed, Signal, parse_rules
from antiphon.engine.admission.degrading import Ladder
from antiphon.engine.admission.load_signals import LEAST_DEADLINE, RECENT, LoadSignals

STAY = 10.0
TOP = len(DEFAULT_RULES.steps)
TICK = 0.25
LADDERS = [
    DEFAULT_RULES,
    parse_rules("memory>90%,timeouts>=3: max_tokens=512,temperature=0.3"),
    parse_rules("wait>50%: thinking_budget=9; memory>90%: max_tokens=512; kv>99%: shed=all"),
    parse_rules("shed=flex; shed=all"),
]
ladders = st.sampled_from(LADDERS)
shares = st.floats(0, 1.5)
samples = st.lists(
    st.tuples(
        st.floats(TICK, 30),
        st.fixed_dictionaries({Signal.WAIT: shares, Signal.MEMORY: shares, Signal.TIMEOUTS: st.integers(0, 4)}),
        st.sampled_from(["nothing", "probe", "good", "bad", "left"]),
    ),
    max_size=60,
)


def run(ladder: Ladder, now: float, seconds: float, **signals: float) -> float:
    """Sample the same signals for a while; returns the time after it."""
    for _ in range(round(seconds / TICK)):
        now += TICK
        ladder.observe(now, {Signal(name): value for name, value in signals.items()})
    return now


def climbed(rules: DegradeRules = DEFAULT_RULES) -> tuple[Ladder, float]:
    ladder = Ladder(rules, STAY)
    now = run(ladder, 0.0, STAY * (len(rules.steps) + 1), wait=2.0, memory=2.0, kv=2.0)
    assert ladder.level == len(rules.steps)
    return ladder, now


@given(ladders, samples)
def test_the_level_moves_by_one_and_stays_and_rises_only_for_a_reason(rules: DegradeRules, samples):
    ladder, now, changed_at = Ladder(rules, STAY), 0.0, -STAY
    for passed, signals, event in samples:
        now += passed
        before = ladder.level
        if event == "probe":
            ladder.take_probe(now)
        elif event != "nothing":
            ladder.end_probe(now, is_good={"good": True, "bad": False, "left": None}[event])
            assert ladder.level == before or (event == "good" and ladder.level == before - 1)
        between = ladder.level
        ladder.observe(now, signals)
        assert abs(ladder.level - between) <= 1
        assert 0 <= ladder.level <= len(rules.steps)
        if ladder.level != before:
            assert now - changed_at >= STAY, "two changes within the stay"
            changed_at = now
        if ladder.level > between:
            assert any(step.holds(signals) for step in rules.steps[between:])
        if ladder.level < between:
            assert all(step.is_over(signals) for step in rules.steps[between - 1 :])
        assert ladder.limits == rules.limits(ladder.level)
        assert not ladder.allows_probe or ladder.limits.shed is Shed.ALL


@given(ladders, samples)
def test_whatever_happened_it_comes_down_once_the_signals_are_quiet(rules: DegradeRules, samples):
    ladder, now = Ladder(rules, STAY), 0.0
    for passed, signals, event in samples:
        now += passed
        ladder.observe(now, signals)
        if event == "probe":
            ladder.take_probe(now)
        elif event == "bad":
            ladder.end_probe(now, is_good=False)
    run(ladder, now, STAY * 25)  # a probe that never ends, and patience after bad ones, included
    assert ladder.level == 0


@given(st.lists(st.floats(0.751, 0.9), max_size=60), st.integers(0, TOP))
def test_between_the_two_thresholds_nothing_changes(waits: list[float], start: int):
    ladder, now = Ladder(DEFAULT_RULES, STAY), 0.0
    while ladder.level < start:
        now = run(ladder, now, TICK, wait=1.0)
    for wait in waits:
        now = run(ladder, now, STAY, wait=wait)
        assert ladder.level == start


def test_a_moments_peak_changes_nothing():
    ladder = Ladder(DEFAULT_RULES, STAY)
    now = run(ladder, 0.0, 0.5, kv=1.0)
    run(ladder, now, 1.0, kv=0.5)
    assert ladder.level == 0


def test_under_lasting_load_each_level_lasts_a_stay():
    ladder, now, changes = Ladder(DEFAULT_RULES, STAY), 0.0, []
    for _ in range(400):
        before, now = ladder.level, run(ladder, now, TICK, timeouts=3)
        changes += [now] * (ladder.level != before)
    assert ladder.level == TOP
    assert [later - earlier for earlier, later in pairwise(changes)] == pytest.approx([STAY] * 3)


def test_before_all_are_let_in_again_one_is_and_its_success_lowers_the_level():
    ladder, now = climbed()
    assert not ladder.allows_probe
    now = run(ladder, now, STAY + TICK, wait=0.1)
    assert (ladder.level, ladder.allows_probe, ladder.probe_level) == (TOP, True, TOP - 1)
    assert ladder.take_probe(now)
    assert not ladder.take_probe(now), "one is let through"
    ladder.end_probe(now + 1, is_good=True)
    assert ladder.level == TOP - 1
    assert ladder.limits.shed is Shed.FLEX


def test_after_a_probe_that_failed_all_are_refused_for_longer_each_time():
    ladder, now = climbed()
    for stays in (1, 2, 4, 8, 8):
        calm_at = now
        while not ladder.allows_probe:
            now = run(ladder, now, TICK)
        assert now - calm_at == pytest.approx(stays * STAY, abs=2 * TICK)
        assert ladder.take_probe(now)
        ladder.end_probe(now, is_good=False)
        assert (ladder.level, ladder.allows_probe) == (TOP, False)


def test_a_probe_whose_client_left_shows_nothing_and_another_is_allowed():
    ladder, now = climbed()
    now = run(ladder, now, STAY + TICK)
    assert ladder.take_probe(now)
    ladder.end_probe(now, is_good=None)
    assert (ladder.level, ladder.allows_probe) == (TOP, True)


def test_a_probe_that_never_ends_is_forgotten():
    ladder, now = climbed()
    now = run(ladder, now, STAY + TICK)
    assert ladder.take_probe(now)
    now = run(ladder, now, 4 * STAY)
    assert (ladder.level, ladder.allows_probe) == (TOP, False)
    run(ladder, now, 4 * STAY)
    assert ladder.level < TOP


def test_a_result_that_comes_after_the_load_is_back_lowers_nothing():
    ladder, now = climbed()
    now = run(ladder, now, STAY + TICK)
    assert ladder.take_probe(now)
    now = run(ladder, now, TICK, wait=2.0)
    ladder.end_probe(now, is_good=True)
    assert (ladder.level, ladder.allows_probe) == (TOP, False)


@given(st.floats(0, 3 * STAY))
def test_the_time_to_come_back_is_when_the_level_can_be_lower(passed: float):
    ladder, now = climbed()
    now = run(ladder, now, passed)
    at = now + ladder.retry_after(now)
    while ladder.level == TOP and not ladder.allows_probe:
        now = run(ladder, now, TICK)
    assert now <= at + 2 * TICK


# --- what the signals are


def test_the_predicted_wait_is_a_share_of_what_clients_accept_and_falls_with_time():
    signals = LoadSignals()
    assert signals.wait(0.0) == 0.0
    signals.note_prediction(0.0, "a", 30.0, 60.0)
    assert [signals.wait(now) for now in (0.0, 15.0, 30.0, 45.0)] == [0.5, 0.25, 0.0, 0.0]


def test_one_client_alone_does_not_make_the_wait_long():
    """Neither by a flood that only it waits for, nor by accepting no wait."""
    signals = LoadSignals()
    for _ in range(100):
        signals.note_prediction(0.0, "flood", 100.0, 100.0)
        signals.note_prediction(0.0, "quiet", 1.0, 100.0)
    assert signals.wait(0.0) == 0.01
    signals = LoadSignals()
    signals.note_prediction(0.0, "impatient", 0.5, 0.001)
    assert signals.wait(0.0) == 0.5 / LEAST_DEADLINE


@given(st.integers(0, 2000))
def test_clients_are_forgotten(num_clients: int):
    signals = LoadSignals()
    for number in range(num_clients):
        signals.note_prediction(number / 100, str(number), 10.0, 10.0)
    assert len(signals._predicted) <= 256
    assert signals.wait(num_clients / 100 + RECENT) == 0.0
    assert not signals._predicted


def test_deadlines_missed_in_a_row_count_until_one_is_met_or_they_are_old():
    signals = LoadSignals()
    for now in (1.0, 2.0, 3.0):
        signals.note_missed(now, 10.0)
    assert signals.timeouts(3.0) == 3
    assert signals.timeouts(2.0 + RECENT) == 1
    signals.note_met()
    assert signals.timeouts(3.0) == 0


def test_a_deadline_that_nobody_could_meet_does_not_count():
    signals = LoadSignals()
    signals.note_missed(0.0, 0.1)
    assert signals.timeouts(0.0) == 0


def test_engines_that_died_count_for_a_minute():
    signals = LoadSignals()
    signals.note_restarts(0.0, 1)
    signals.note_restarts(5.0, 3)
    signals.note_restarts(6.0, 3)
    assert [signals.engine_deaths(now) for now in (6.0, RECENT, RECENT + 5)] == [3, 2, 0]
