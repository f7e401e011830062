"""Comparisons of load tests: how often they are wrong, on data whose truth is known."""

# ruff: noqa: S311

from __future__ import annotations

from math import exp
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.bench.comparison import (
    METRICS,
    Comparison,
    compare_independent,
    compare_rounds,
    order,
    with_late_clients,
)
from antiphon.bench.measured_requests import measured_requests
from antiphon.bench.records import CheckRecord, RequestRecord, StageRecord
from antiphon.bench.students_t import critical, two_sided_p
from antiphon.bench.summary import StageSummary, summarize_stage

EMPTY = summarize_stage(StageRecord(0, "8 users", "users", 0.0, 1.0), [])
RATES = tuple(metric for metric in METRICS if not metric.latency)


def stage(rate: float, label: str = "8 users", answers: float = 1.0) -> StageSummary:
    return msgspec.structs.replace(EMPTY, label=label, output_tokens_per_second=rate, requests_per_second=answers)


def rounds(
    draw: Random, count: int, ratio: float, noise: float, drift: float = 0.0
) -> list[tuple[StageSummary, StageSummary]]:
    """Rounds of two servers, the second `ratio` times as fast, on a machine that slows down by `drift` in each run."""
    runs = [(number, "AB"[server]) for number in range(count) for server in order(number)]

    def measured(number: int, server: str) -> float:
        slower = exp(-drift * runs.index((number, server)))
        return (ratio if server == "B" else 1.0) * 100 * exp(draw.gauss(0, noise)) * slower

    return [(stage(measured(number, "A")), stage(measured(number, "B"))) for number in range(count)]


def compared(pairs: list[tuple[StageSummary, StageSummary]]) -> Comparison:
    return compare_rounds("one", "two", pairs, RATES[:1])


@pytest.mark.parametrize(
    ("p", "degrees", "expected"),
    [
        (0.05, 1, 12.706),
        (0.05, 2, 4.303),
        (0.05, 3, 3.182),
        (0.01, 4, 4.604),
        (0.05, 5, 2.571),
        (0.01, 10, 3.169),
        (0.001, 30, 3.646),
    ],
)  # from the tables of Abramowitz and Stegun, 26.10
def test_students_t_is_that_of_the_tables(p: float, degrees: int, expected: float) -> None:
    assert critical(p, degrees) == pytest.approx(expected, abs=5e-4)
    assert two_sided_p(expected, degrees) == pytest.approx(p, rel=1e-3)


@given(st.integers(1, 60), st.floats(0.0, 50.0), st.floats(0.0, 50.0))
def test_a_larger_t_is_less_probable(degrees: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= two_sided_p(high, degrees) <= two_sided_p(low, degrees) <= 1


@given(st.integers(1, 40))
def test_each_server_is_first_in_every_other_round(count: int) -> None:
    orders = [order(number) for number in range(count)]
    assert all(sorted(each) == [0, 1] for each in orders)
    firsts = [first for first, _ in orders]
    assert abs(firsts.count(0) - firsts.count(1)) <= 1


@pytest.mark.parametrize("count", [4, 6, 10])
def test_an_interval_covers_the_true_ratio_as_often_as_it_says(count: int) -> None:
    draw = Random(count)
    covered = 0
    for _ in range(600):
        (found,) = compared(rounds(draw, count, 1.25, 0.05)).estimates
        covered += found.low <= 1.25 <= found.high
    assert 554 <= covered <= 586  # of 570, three standard deviations


def test_equal_servers_are_hardly_ever_found_to_differ_in_any_metric() -> None:
    draw = Random(1)
    loads = ("1 user", "8 users", "20 users")
    wrong = 0
    for _ in range(400):
        pairs = [
            (
                stage(exp(draw.gauss(0, 0.1)), load, exp(draw.gauss(0, 0.1))),
                stage(exp(draw.gauss(0, 0.1)), load, exp(draw.gauss(0, 0.1))),
            )
            for load in loads
            for _ in range(5)
        ]
        wrong += any(each.winner for each in compare_rounds("one", "two", pairs, RATES).estimates)
    assert wrong <= 400 * 0.05 + 13  # three standard deviations


def test_a_steady_drift_favours_neither() -> None:
    draw = Random(2)
    wins = [compared(rounds(draw, 6, 1.0, 0.01, drift=0.02)).estimates[0].winner for _ in range(300)]
    assert sum(winner != "" for winner in wins) <= 300 * 0.05 + 12


def test_a_difference_of_the_smallest_size_is_seen_in_four_of_five_comparisons() -> None:
    draw = Random(3)
    smallest = [compared(rounds(draw, 8, 1.0, 0.05)).estimates[0].smallest for _ in range(200)]
    typical = sorted(smallest)[100]
    seen = sum(compared(rounds(draw, 8, typical, 0.05)).estimates[0].winner == "B" for _ in range(400))
    assert 0.7 <= seen / 400 <= 0.9


@given(st.floats(1.2, 5.0), st.integers(0, 1000), st.booleans())
def test_a_large_difference_is_always_found_and_named(ratio: float, seed: int, swapped: bool) -> None:
    pairs = rounds(Random(seed), 6, 1 / ratio if swapped else ratio, 0.005)
    found = compared(pairs)
    (estimate,) = found.estimates
    assert estimate.winner == ("A" if swapped else "B")
    assert estimate.low <= estimate.ratio <= estimate.high
    assert found.sentence.startswith("one is faster than two" if swapped else "two is faster than one")


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.02, 0.3]))
def test_there_is_a_verdict_exactly_if_the_interval_leaves_out_one(seed: int, noise: float) -> None:
    draw = Random(seed)
    pairs = [pair for _ in range(3) for pair in rounds(draw, 2, 1.05, noise)]
    for each in compare_rounds("one", "two", pairs, RATES).estimates:
        assert (each.winner != "") == (each.low > 1 or each.high < 1)


@pytest.mark.parametrize("count", [1, 2])
def test_few_rounds_cannot_tell(count: int) -> None:
    found = compared(rounds(Random(0), count, 3.0, 0.0))
    assert found.estimates[0].winner == ""
    assert found.estimates[0].smallest is None
    assert "at least 3 rounds" in found.sentence
    assert found.estimates[0].in_words() == "can't tell (too few rounds)"
    assert msgspec.json.decode(msgspec.json.encode(found), type=Comparison) == found


def test_verdicts_are_told_in_plain_words() -> None:
    exact = [(stage(100.0 + noise), stage(115.0 + noise)) for noise in (0.0, 1.0, 2.0, 1.5)]
    (found,) = compared(exact).estimates
    assert found.in_words() == "B is better: about 15 % more"
    (found,) = compared([(right, left) for left, right in exact]).estimates
    assert found.in_words() == "A is better: about 15 % more"
    (found,) = compared([(stage(100.0), stage(300.0))] * 4).estimates
    assert found.in_words() == "B is better: about 3 times as many"
    (found,) = compared([(stage(100.0), stage(100.0))] * 4).estimates
    assert found.in_words().startswith("can't tell")


def requests(draw: Random, count: int, scale: float, failures: int = 0) -> tuple[StageSummary, list[RequestRecord]]:
    record = StageRecord(0, "8 users", "users", 0.0, 100.0, users=8)
    made = []
    for number in range(count):
        took = scale * exp(draw.gauss(0, 0.3))
        common = {"stage": 0, "number": number, "sent": number / 10}
        if number < failures:
            made.append(RequestRecord(end="failed", ended=number / 10 + took, **common))  # type: ignore[arg-type]
        else:
            times = {"first_token": number / 10 + took / 2, "last_token": number / 10 + took}
            made.append(RequestRecord(end="answered", ended=number / 10 + took, answer_tokens=9, **times, **common))  # type: ignore[arg-type]
    return summarize_stage(record, made), made


def test_single_runs_are_compared_by_resampling_and_called_weaker() -> None:
    draw = Random(4)
    (one, ones), (two, twos) = requests(draw, 200, 1.0), requests(draw, 200, 1.5, failures=7)
    sides = ([(one, measured_requests(ones))], [(two, measured_requests(twos))])
    found = compare_independent("one", "two", *sides)
    assert found.method == "resampled requests"
    assert found.sentence.startswith("one was, in these runs, faster than two")
    assert {each.metric for each in found.estimates} >= {"first token, P50", "end to end, P95"}
    assert all("/s" not in each.metric for each in found.estimates)  # a single rate has no spread
    assert found.failures == ["two: 7 of 200 requests were not answered. Latencies are those of the others."]
    assert compare_independent("one", "two", *sides) == found  # the resampling is seeded


def test_a_comparison_says_that_the_client_was_too_slow() -> None:
    stage, made = requests(Random(4), 20, 1.0)
    side = [(stage, measured_requests(made))]
    found = compare_independent("one", "two", side, side)
    checks = [CheckRecord(0, "lag", True, 1), CheckRecord(1, "lag", False, 1, ["30 ms"])]
    assert with_late_clients(found, ([checks[0]], [checks[0]])) == found
    (failure,) = with_late_clients(found, ([checks[0]], checks)).failures
    assert failure.startswith("two: not valid in 1 of 2 stages.")


def test_equal_single_runs_are_hardly_ever_found_to_differ() -> None:
    wrong = 0
    for seed in range(20):
        draw = Random(seed)
        sides = [[(stage, measured_requests(made))] for stage, made in (requests(draw, 60, 1.0) for _ in range(2))]
        wrong += any(each.winner for each in compare_independent("one", "two", *sides, METRICS[:2]).estimates)
    assert wrong <= 4


def test_repeated_runs_are_compared_round_by_round() -> None:
    draw = Random(5)
    sides = [[(stage(rate * exp(draw.gauss(0, 0.02))), []) for _ in range(5)] for rate in (100.0, 130.0)]
    found = compare_independent("one", "two", *sides, RATES[:1])
    assert found.method == "independent rounds"
    assert found.sentence == "two is faster than one, in 1 of 1 figures."


def test_runs_without_a_common_load_cannot_be_compared() -> None:
    found = compare_independent("one", "two", [(stage(1.0, "1 user"), [])], [(stage(1.0, "2 users"), [])])
    assert found.estimates == []
    assert "nothing to compare" in found.sentence


def test_the_first_answer_token_is_only_compared_where_there_are_thoughts() -> None:
    draw = Random(6)
    (one, ones), (two, twos) = requests(draw, 50, 1.0), requests(draw, 50, 1.0)
    thought = [msgspec.structs.replace(each, first_answer=each.ended, thought_tokens=3) for each in ones]
    thinking = summarize_stage(StageRecord(0, "8 users", "users", 0.0, 100.0), thought)
    without = compare_rounds("one", "two", [(one, two)] * 3)
    assert "first answer token, P50" not in {each.metric for each in without.estimates}
    having = compare_rounds("one", "two", [(thinking, thinking)] * 3)
    assert "first answer token, P50" in {each.metric for each in having.estimates}
    single = compare_independent("one", "two", [(one, measured_requests(ones))], [(two, measured_requests(twos))])
    assert "first answer token, P50" not in {each.metric for each in single.estimates}


def test_a_figure_that_only_some_rounds_have_is_left_out() -> None:
    pairs = [(stage(100.0), stage(200.0, answers=answers)) for answers in (1.0, 0.0, 1.0, 1.0)]
    found = compare_rounds("one", "two", pairs, RATES)
    assert [(each.metric, each.rounds) for each in found.estimates] == [("output tokens/s", 4)]
