"""The figures of load tests: percentiles, limits, stages and windows, from records written by hand."""

from __future__ import annotations

from math import inf

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.bench.distributions import distribution, histogram, is_few, percentile
from antiphon.bench.limits import goodput, latency_figure, objective
from antiphon.bench.measured_requests import arrivals, measured_requests
from antiphon.bench.records import Record, RequestRecord, RunRecord, SampleRecord, StageRecord
from antiphon.bench.server_load import server_load
from antiphon.bench.summary import summarize, summarize_stage
from antiphon.bench.verdict import conclude
from antiphon.bench.windows import users_within, width_for, windows
from antiphon.errors import ConfigError

TIMES = st.floats(0, 1e6, allow_nan=False)
RUN = RunRecord(1, "a", "http://a", "m", ["antiphon", "bench"], 0.0, "1", {}, {})


def answer(number: int = 0, sent: float = 0.0, took: float = 1.0, **others: object) -> RequestRecord:
    """An answered request of 4 tokens, the first after a quarter of its time."""
    fields: dict[str, object] = {
        "stage": 0,
        "number": number,
        "end": "answered",
        "sent": sent,
        "ended": sent + took,
        "first_token": sent + took / 4,
        "first_answer": sent + took / 2,
        "last_token": sent + took,
        "gaps_ms": [took * 250] * 3,
        "prompt_tokens": 10,
        "thought_tokens": 1,
        "answer_tokens": 3,
    }
    return RequestRecord(**(fields | others))  # type: ignore[arg-type]


def failure(number: int = 0, sent: float = 0.0, end: str = "failed", **others: object) -> RequestRecord:
    return RequestRecord(0, number, end, sent, sent + 0.01, **others)  # type: ignore[arg-type]


def stage(**others: object) -> StageRecord:
    fields: dict[str, object] = {"stage": 0, "label": "8 users", "shape": "users", "started": 0.0, "ended": 10.0}
    return StageRecord(**(fields | others))  # type: ignore[arg-type]


@given(st.lists(TIMES, min_size=1, max_size=300), st.sampled_from([0, 1, 50, 75, 90, 95, 99, 100]))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: list[float], percent: int) -> None:
    ordered = sorted(values)
    found = percentile(ordered, percent)
    assert found in values
    assert sum(value <= found for value in ordered) * 100 >= percent * len(ordered)
    assert sum(value < found for value in ordered) * 100 < max(percent, 1) * len(ordered)


@given(st.lists(TIMES, min_size=1, max_size=300))
def test_percentiles_are_those_of_numpys_inverted_cdf(values: list[float]) -> None:
    found = distribution(values)
    assert found is not None
    for percent in (50, 75, 100):  # whose shares are exact in binary
        assert percentile(sorted(values), percent) == np.percentile(values, percent, method="inverted_cdf")
    assert found.mean == pytest.approx(np.mean(values))
    assert (found.minimum, found.maximum, found.count) == (min(values), max(values), len(values))


@given(st.integers(1, 250))
def test_percentiles_of_too_few_values_are_the_largest_and_are_named(count: int) -> None:
    found = distribution(float(value) for value in range(count))
    assert found is not None
    for percent in (50, 90, 95, 99):
        assert (f"p{percent}" in found.few) == is_few(count, percent)
        if is_few(count, percent):
            assert found.value(f"p{percent}") == found.maximum
    assert is_few(99, 99)
    assert not is_few(100, 99)


def test_nothing_measured_has_no_distribution() -> None:
    assert distribution([]) is None


@given(st.lists(st.floats(0, 10), max_size=100))
def test_a_histogram_counts_every_value_once(values: list[float]) -> None:
    edges = [0.0, 1.0, 2.5, 10.0]
    expected, _ = np.histogram(values, edges)
    assert histogram(values, edges) == expected.tolist()


def test_latencies_count_from_when_a_request_was_due_with_all_its_attempts() -> None:
    refused = failure(7, 1.5, "refused", retry_after=2.0, due=1.0)
    (found,) = measured_requests([answer(7, 4.0, attempt=1, waited=2.5, due=1.0), refused])
    assert found.first is refused
    assert found.answered
    assert found.start == 1.0
    assert found.lateness == 0.5
    assert found.first_token == 3.25
    assert found.first_answer == 3.5
    assert found.end_to_end == 4.0
    assert found.time_per_token == 0.25


def test_a_request_without_a_schedule_starts_when_it_is_sent() -> None:
    (found,) = measured_requests([answer(sent=3.0)])
    assert (found.start, found.lateness) == (3.0, None)


def test_tokens_are_spread_evenly_over_the_parts_of_a_stream() -> None:
    parts = list(arrivals(answer(took=1.0, thought_tokens=2, answer_tokens=6)))
    assert parts == [(0.25, 2.0), (0.5, 2.0), (0.75, 2.0), (1.0, 2.0)]
    assert list(arrivals(failure())) == []


def test_goodput_reads_vllms_syntax_and_judges_each_request() -> None:
    limits = goodput(["ttft:2000", "tpot:100 e2el:8000"])
    assert limits is not None
    assert limits.limits == {"first_token": 2.0, "time_per_token": 0.1, "end_to_end": 8.0}
    slow, fast, failed = measured_requests([answer(0, took=4.0), answer(1, took=0.3), failure(2)])
    assert not limits.is_good(slow)  # 1 s per token
    assert limits.is_good(fast)
    assert not limits.is_good(failed)
    assert goodput([]) is None


@pytest.mark.parametrize("text", ["ttft", "ttft:", "ttft:-1", "speed:3", "ttft:2s"])
def test_a_bad_limit_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--goodput '{text}'"):
        goodput([text])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p95 first_token < 2s", ("p95", "first_token", "<", 2.0)),
        ("P99 ttft<=250ms", ("p99", "first_token", "<=", 0.25)),
        ("mean end_to_end < 1.5", ("mean", "end_to_end", "<", 1.5)),
        ("max tpot < 100ms", ("max", "time_per_token", "<", 0.1)),
        ("error_rate < 1%", ("", "error_rate", "<", 0.01)),
        ("output_tokens_per_second > 100", ("", "output_tokens_per_second", ">", 100.0)),
        ("goodput >= 95%", ("", "goodput", ">=", 0.95)),
    ],
)
def test_objectives_are_read(text: str, expected: tuple[str, str, str, float]) -> None:
    found = objective(text)
    assert (found.figure, found.metric, found.comparison, found.bound) == expected


@pytest.mark.parametrize(
    "text",
    ["", "fast", "p95 < 2s", "first_token < 2s", "p80 ttft < 2s", "mean error_rate < 1%", "p95 ttft < 2%", "x < 1",
     "error_rate < 1s", "requests_per_second > 5%"],
)  # fmt: skip
def test_a_bad_objective_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="--slo"):
        objective(text)


def test_what_was_not_answered_is_slower_than_any_limit() -> None:
    requests = measured_requests([*(answer(number) for number in range(19)), failure(19), failure(20, end="cancelled")])
    assert latency_figure("p95", "first_token", requests) == 0.25
    assert latency_figure("p99", "first_token", requests) == inf
    assert latency_figure("mean", "first_token", requests) == 0.25
    assert latency_figure("p95", "first_token", []) is None


def test_a_stage_counts_what_started_after_its_warm_up() -> None:
    records = [
        answer(0, 0.0, 1.5),  # in the warm-up
        answer(1, 2.0),
        answer(2, 3.0, end="cancelled"),
        failure(3, 4.0, status=500, code="engine_error"),
        failure(4, 5.0, "refused", status=503, code="server_overloaded", retry_after=2.0),
        answer(4, 7.0, attempt=1, waited=2.0),
        answer(5, 2.5, stage=1),
    ]
    samples = [SampleRecord(float(at), cpu_seconds=at * 1.5, memory_bytes=100.0 + at) for at in range(12)]
    found = summarize_stage(stage(warm_up=1.0, client_cpu_seconds=2.0), records, samples, goodput(["ttft:500"]))
    assert (found.started, found.seconds) == (1.0, 9.0)
    assert (found.requests, found.stopped) == (3, 1)
    assert found.ends == {"answered": 2, "failed": 1}
    assert found.errors == {"failed 500 engine_error": 1}
    assert found.error_rate == pytest.approx(1 / 3)
    assert found.requests_per_second == pytest.approx(3 / 9)  # one of them started in the warm-up
    assert found.output_tokens_per_second == pytest.approx((4 + 4 + 4 + 2) / 9)  # two arrived after the warm-up
    assert found.goodput == pytest.approx(1 / 3)  # the retried one waited for 2 s
    assert found.refusals.attempts == found.refusals.kept == found.refusals.true == 1
    assert found.client_cpu == pytest.approx(0.2)
    assert found.server.cpu == pytest.approx(1.5)
    assert found.server.memory_bytes == 110.0
    assert found.latency.end_to_end is not None
    assert found.latency.end_to_end.maximum == 3.0


def test_a_stage_that_went_on_after_its_last_request_is_measured_until_then() -> None:
    records = [answer(0, 1.0), answer(1, 8.0, 4.0)]
    assert summarize_stage(stage(sending_ended=8.0, ended=12.0), records).seconds == 8.0
    assert summarize_stage(stage(sending_ended=0.5, ended=12.0), records).seconds == 12.0  # all were sent at once


def test_objectives_are_judged_for_each_stage_and_decide_whether_the_run_passed() -> None:
    records = [RUN, stage(), *(answer(number) for number in range(20))]
    kept = summarize(records, objectives=[objective("p95 first_token < 0.3s")])
    assert kept.passed
    missed = summarize(records, objectives=[objective("p95 first_token < 0.2s"), objective("error_rate < 1%")])
    assert [verdict.met for verdict in missed.stages[0].objectives] == [False, True]
    assert not missed.passed


def test_a_stage_that_was_not_completed_is_left_out() -> None:
    assert summarize([RUN, answer()]).stages == []
    with pytest.raises(ConfigError, match="record of a run"):
        summarize([answer()])


def test_a_stage_that_was_interrupted_is_marked_and_says_nothing_of_the_knee() -> None:
    run = msgspec.structs.replace(RUN, options={"find_knee": "True"})
    records = [run, answer(), stage(users=8), answer(stage=1), stage(stage=1, users=16, interrupted=True)]
    found = summarize(records, objectives=[objective("p95 ttft < 9s")])
    assert [each.interrupted for each in found.stages] == [False, True]
    assert found.knee is not None
    assert [trial.load for trial in found.knee.trials] == [8]
    assert conclude(found).sentence.endswith("The run was interrupted.")


def test_a_search_by_rate_tells_the_highest_rate() -> None:
    run = msgspec.structs.replace(RUN, options={"find_knee": "True", "rate": "8"})
    records: list[Record] = [run]
    for number, rate in enumerate([0.25, 0.25, 0.5, 0.5]):
        records += [answer(stage=number, took=rate * 10), stage(stage=number, shape="rate", rate=rate)]
    found = summarize(records, objectives=[objective("p95 e2el < 3s")])
    assert found.knee is not None
    assert found.knee.sentence.startswith("The objectives are kept up to 0.25 requests/s (2 of 2 stages")
    assert found.knee.sentence.endswith("With 0.5 requests/s they are not.")
    assert found.passed


def test_a_refusal_whose_time_was_not_true_is_counted() -> None:
    lied = [failure(0, 0.0, "refused", retry_after=1.0), failure(0, 1.0, "refused", attempt=1, waited=1.0)]
    impatient = [failure(1, 0.0, "refused", retry_after=5.0), answer(1, 1.0, attempt=1, waited=1.0)]
    found = summarize_stage(stage(), [*lied, *impatient]).refusals
    assert (found.attempts, found.with_retry_after, found.retried, found.kept, found.true) == (3, 2, 2, 1, 0)


def test_the_servers_cpu_is_not_negative_after_its_restart() -> None:
    samples = [
        SampleRecord(0.0, cpu_seconds=50.0),
        SampleRecord(1.0, cpu_seconds=51.0),
        SampleRecord(2.0, cpu_seconds=0.5),
    ]
    assert server_load(samples, 0.0, 2.0).cpu == 1.0
    assert server_load([], 0.0, 2.0).cpu is None


@given(st.lists(st.tuples(st.floats(0, 99), st.floats(0.01, 20)), min_size=1, max_size=60))
def test_windows_lose_no_request_and_no_token(times: list[tuple[float, float]]) -> None:
    requests = measured_requests([answer(number, sent, took) for number, (sent, took) in enumerate(times)])
    found = windows([stage(ended=120.0)], requests, [])
    assert sum(window.started for window in found) == len(times)
    assert sum(window.requests_per_second * window.seconds for window in found) == pytest.approx(len(times))
    assert sum(window.output_tokens_per_second * window.seconds for window in found) == pytest.approx(4 * len(times))
    assert found[-1].start + found[-1].seconds == 120.0


@given(st.floats(0.1, 1e15))
def test_there_are_at_most_forty_windows(seconds: float) -> None:
    assert seconds / width_for(seconds) <= 40


def test_users_stay_within_a_limit_up_to_the_first_number_that_does_not() -> None:
    took = {1: 1.0, 2: 1.2, 3: 1.6, 4: 1.0}
    requests = measured_requests(
        [answer(users * 10 + each, took=seconds, users=users) for users, seconds in took.items() for each in range(3)]
    )
    found = users_within(requests, "end_to_end", 1.5)
    assert found is not None
    assert (found.users, found.first_beyond, found.most_tried) == (2, 3, 4)
    assert found.mean == pytest.approx(1.2)
    whole = users_within(requests, "end_to_end", 2.0)
    assert whole is not None
    assert (whole.users, whole.first_beyond) == (4, None)
    assert users_within(requests[:2], "end_to_end", 1.5) is None


def test_a_number_of_users_that_were_not_all_answered_is_beyond_any_limit() -> None:
    requests = measured_requests(
        [*(answer(each, users=1) for each in range(3)), *(failure(9 + each, users=2) for each in range(3))]
    )
    found = users_within(requests, "end_to_end", 100.0)
    assert found is not None
    assert (found.users, found.first_beyond) == (1, 2)
