"""How fast answers are, from steps: measured or unknown, never made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.engine.speed import Speed


class Clock:
    """A machine whose steps take so long, and a speed that follows them."""

    def __init__(self, fixed: float = 0.05, per_token: float = 0.002, overhead: float = 0.001) -> None:
        self.speed = Speed()
        self.now = 1000.0
        self.fixed, self.per_token, self.overhead = fixed, per_token, overhead

    def step(self, num_drawn: int, num_prompt_tokens: int = 0, *, is_idle: bool = False) -> None:
        num_tokens = num_drawn + num_prompt_tokens
        seconds = self.fixed + self.per_token * num_tokens
        self.now += seconds + self.overhead
        self.speed.observe(self.now, num_tokens=num_tokens, num_drawn=num_drawn, seconds=seconds, is_idle=is_idle)

    def of_one_among(self, count: int) -> float:
        return 1 / (self.fixed + self.per_token * count + self.overhead)


def test_nothing_is_known_before_it_was_measured():
    clock = Clock()
    assert clock.speed.tokens_per_second is None
    assert clock.speed.of_one_among(1) is None
    clock.step(0, 40)
    assert clock.speed.tokens_per_second == 0.0
    for _ in range(7):
        assert clock.speed.of_one_among(1) is None
        clock.step(1)
    clock.step(1)
    assert clock.speed.of_one_among(1) is not None


@given(st.integers(1, 64), st.floats(0.001, 0.2), st.floats(0.0001, 0.01))
def test_a_steady_batch_is_measured_and_its_neighbours_predicted(running, fixed, per_token):
    clock = Clock(fixed, per_token)
    for size in (64, 1, 32, 8) * 10:
        clock.step(size)
    for _ in range(150):
        clock.step(running)
    assert clock.speed.tokens_per_second == pytest.approx(running * clock.of_one_among(running), rel=0.02)
    assert clock.speed.of_one_among(running) == pytest.approx(clock.of_one_among(running), rel=0.02)
    assert clock.speed.of_one_among(running + 1) == pytest.approx(clock.of_one_among(running + 1), rel=0.1)


def test_a_pause_is_not_counted():
    clock = Clock()
    for _ in range(30):
        clock.step(4)
    busy = clock.speed.tokens_per_second
    clock.step(4, is_idle=True)
    clock.now += 3600
    clock.step(4)
    assert clock.speed.tokens_per_second == pytest.approx(busy, rel=0.02)


def test_the_time_of_a_dead_engine_is_not_counted():
    clock = Clock()
    for _ in range(30):
        clock.step(4)
    busy = clock.speed.tokens_per_second
    clock.speed.interrupt()
    clock.now += 3600
    clock.step(4)
    assert clock.speed.tokens_per_second == pytest.approx(busy, rel=0.02)


@given(st.lists(st.tuples(st.integers(0, 64), st.integers(0, 512), st.booleans()), max_size=60), st.integers(1, 64))
def test_no_figure_is_ever_below_zero_or_infinite(steps, count):
    clock = Clock()
    for num_drawn, prompt, is_idle in steps:
        if num_drawn + prompt:
            clock.step(num_drawn, prompt, is_idle=is_idle)
    for figure in (clock.speed.tokens_per_second, clock.speed.of_one_among(count)):
        assert figure is None or 0 <= figure < 1e6
