"""How fast answers are, from steps: measured or unknown, never made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.engine.admission.speed import Speed
from antiphon.engine.budget import StepCosts


class Clock:
    """A machine whose steps take so long, and a speed that follows them."""

    def __init__(self, fixed: float = 0.05, per_token: float = 0.002) -> None:
        self.costs = StepCosts()
        self.speed = Speed(self.costs)
        self.fixed, self.per_token = fixed, per_token

    def step(self, num_drawn: int, num_prompt_tokens: int = 0) -> None:
        num_tokens = num_drawn + num_prompt_tokens
        seconds = self.fixed + self.per_token * num_tokens
        self.costs.observe(num_tokens, seconds)
        self.speed.observe(num_tokens, num_drawn, seconds)

    def of_one_among(self, count: int) -> float:
        return 1 / (self.fixed + self.per_token * count)


def test_nothing_is_known_before_it_was_measured():
    clock = Clock()
    assert clock.speed.tokens_per_second is None
    assert clock.speed.of_one_among(1) is None
    clock.step(0, 40)
    assert clock.speed.tokens_per_second == 0.0
    for _ in range(19):
        assert clock.speed.of_one_among(1) is None
        clock.step(1)
    clock.step(1)
    assert clock.speed.of_one_among(1) is not None


@given(st.integers(1, 64), st.floats(0.001, 0.2), st.floats(0.0001, 0.01))
def test_a_steady_batch_is_measured_and_its_neighbours_predicted(running, fixed, per_token):
    clock = Clock(fixed, per_token)
    for size in (64, 1, 32, 8) * 10:
        clock.step(size)
    for _ in range(300):
        clock.step(running)
    assert clock.speed.tokens_per_second == pytest.approx(running * clock.of_one_among(running), rel=0.02)
    assert clock.speed.of_one_among(running) == pytest.approx(clock.of_one_among(running), rel=0.02)
    assert clock.speed.of_one_among(running + 1) == pytest.approx(clock.of_one_among(running + 1), rel=0.1)


def test_a_crowd_that_left_is_forgotten():
    clock = Clock()
    for _ in range(100):
        clock.step(32)
    for _ in range(200):
        clock.step(1)
    assert clock.speed.tokens_per_second == pytest.approx(clock.of_one_among(1), rel=0.02)


@given(st.lists(st.tuples(st.integers(0, 64), st.integers(0, 512)), max_size=60), st.integers(1, 64))
def test_no_figure_is_ever_below_zero_or_infinite(steps, count):
    clock = Clock()
    for num_drawn, prompt in steps:
        if num_drawn + prompt:
            clock.step(num_drawn, prompt)
    for figure in (clock.speed.tokens_per_second, clock.speed.of_one_among(count)):
        assert figure is None or 0 <= figure < 1e6
