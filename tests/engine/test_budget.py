"""The step budget learns a machine's cost, keeps steps under the target, starves no prompt and shrugs off hiccups."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.engine.budget import StepBudget


def after(steps: list[tuple[int, float]], *, target: float = 0.25, most: int = 512) -> StepBudget:
    budget = StepBudget(most, target)
    for num_tokens, seconds in steps:
        budget.observe(num_tokens, seconds)
    return budget


def machine(num_tokens: int, *, fixed: float = 0.06, per_token: float = 0.002) -> tuple[int, float]:
    return num_tokens, fixed + per_token * num_tokens


def test_it_learns_a_line():
    budget = after([machine(n) for n in (8, 100, 8, 60, 8, 200, 8, 30) * 5])
    assert budget.seconds_per_token == pytest.approx(0.002, rel=0.05)
    assert budget.fixed_seconds == pytest.approx(0.06, rel=0.05)


def test_a_prompt_alone_gets_steps_of_four_times_the_target():
    fast = [machine(n, per_token=0.001) for n in (100, 512)] * 9
    assert after(fast).tokens(0) == 512
    assert machine(after([machine(n) for n in (100, 512)] * 9).tokens(0))[1] == pytest.approx(1.0, rel=0.05)
    assert after(fast, target=0.0).tokens(0) == 512


def test_while_a_prompt_waits_behind_another_steps_keep_to_the_target():
    assert machine(after([machine(n) for n in (100, 512)] * 9).tokens(0, 2))[1] == pytest.approx(0.25, rel=0.05)


def test_no_target_means_the_whole_batch():
    assert after([machine(8)] * 3, target=0.0).tokens(8) == 512


def test_a_long_prompt_beside_running_streams_stays_under_the_target():
    budget = after([machine(8)])
    for _ in range(50):
        budget.observe(*machine(budget.tokens(8)))
    assert machine(budget.tokens(8))[1] == pytest.approx(0.25, rel=0.1)


def test_it_follows_a_machine_that_becomes_slower():
    budget = after([machine(8)])
    for _ in range(50):
        budget.observe(*machine(budget.tokens(8)))
    for _ in range(50):
        budget.observe(*machine(budget.tokens(8), fixed=0.1, per_token=0.004))
    assert machine(budget.tokens(8), fixed=0.1, per_token=0.004)[1] == pytest.approx(0.25, rel=0.15)


def test_a_hiccup_is_not_believed():
    calm = after([machine(8), machine(100)] * 20)
    before = calm.tokens(8)
    calm.observe(100, 30.0)
    assert calm.tokens(8) > before // 2


def test_steps_of_one_size_say_nothing_about_the_slope():
    budget = after([machine(8), machine(100)] * 20)
    chance = random.Random(1)  # noqa: S311  # noise, not a secret
    for _ in range(200):
        size = chance.choice((8, 9))
        budget.observe(size, machine(size)[1] + chance.uniform(-0.005, 0.005))
        assert budget.seconds_per_token == pytest.approx(0.002, rel=0.5)


def test_a_prompt_always_gets_a_minimum():
    assert after([machine(8, fixed=9.0)] * 5).tokens(8) == 8 + 16


@given(
    steps=st.lists(st.tuples(st.integers(1, 512), st.floats(0, 100, allow_nan=False)), max_size=30),
    most=st.integers(1, 512),
    data=st.data(),
)
def test_the_budget_is_bounded_whatever_was_measured(steps, most, data):
    num_decoding = data.draw(st.integers(0, most))
    assert num_decoding <= after(steps, most=most).tokens(num_decoding) <= most
