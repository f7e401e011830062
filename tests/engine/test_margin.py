"""The margin of predictions: the share of requests that are late comes down to what is allowed, and no further."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.engine.admission.margin import Margin


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.35])
def test_few_requests_are_late_and_the_margin_is_no_larger_than_that_needs(spread):
    draw, margin = Random(7), Margin()  # noqa: S311
    ratios = [max(0.1, draw.gauss(1.0, spread)) for _ in range(6000)]
    late = 0
    for number, ratio in enumerate(ratios):
        late += number >= 2000 and ratio > margin.factor
        margin.observe(10.0, 10.0 * ratio)
    assert 0.015 < late / 4000 < 0.05
    assert margin.factor < 1 + 3 * spread


def test_predictions_that_are_too_long_get_no_margin():
    margin = Margin()
    for _ in range(500):
        margin.observe(10.0, 7.0)
    assert margin.factor == 1.0


def test_clients_that_leave_before_the_predicted_time_say_nothing_and_later_ones_do():
    margin = Margin()
    margin.observe_at_least(10.0, 9.0)
    assert margin.factor == 1.0
    margin.observe_at_least(10.0, 11.0)
    assert margin.factor > 1.0


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.booleans())))
def test_it_stays_within_its_limits(observed):
    margin = Margin()
    for predicted, actual, was_given_up in observed:
        (margin.observe_at_least if was_given_up else margin.observe)(predicted, actual)
        assert 1.0 <= margin.factor <= 2.0
