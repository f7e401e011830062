"""Predictions of when a request begins: nothing delays a lone one, more work never makes it earlier, and they come true
on the scheduler itself, in steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loads import EngineInMemory, ask

from antiphon.engine.admission.forecast import Forecast, Work
from antiphon.engine.budget import StepBudget
from antiphon.engine.requests.admitted import Prediction

STEP, PER_TOKEN = 0.02, 0.001  # seconds


def costs(fixed: float = STEP, per_token: float = PER_TOKEN, target: float = 0.25) -> StepBudget:
    """A machine that has been measured."""
    budget = StepBudget(512, target)
    for count in (1, 8, 64, 512) * 50:
        budget.observe(count, fixed + per_token * count)
    return budget


COSTS = costs()

works = st.lists(
    st.builds(
        Work,
        rank=st.tuples(st.integers(0, 1), st.booleans(), st.integers(1, 5).map(float), st.integers(0, 1000)),
        prompt=st.integers(0, 2000).map(float),
        answer=st.integers(1, 2000).map(float),
        is_running=st.booleans(),
    ),
    max_size=30,
    unique_by=lambda work: work.rank,
)
newcomers = st.builds(
    Work,
    rank=st.tuples(st.integers(0, 1), st.booleans(), st.integers(1, 5).map(float), st.just(2000)),
    prompt=st.integers(1, 2000).map(float),
    answer=st.integers(1, 2000).map(float),
)


@given(newcomers, st.integers(1, 8))
def test_a_lone_request_waits_for_nothing(newcomer: Work, num_places: int) -> None:
    prediction = Forecast(COSTS, num_places, []).predict(newcomer)
    assert prediction.wait == 0
    assert 0 < prediction.first_token < prediction.end


@given(newcomers, works)
def test_what_was_never_measured_is_no_reason_to_wait(newcomer: Work, load: list[Work]) -> None:
    assert Forecast(StepBudget(512, 0.25), 4, load).predict(newcomer) == Prediction()


@given(works, works.filter(bool), newcomers, st.integers(1, 8))
def test_more_work_never_makes_it_earlier(load: list[Work], more: list[Work], newcomer: Work, num_places: int) -> None:
    have = {work.rank for work in load}
    # Work that begins to run takes a place; it does not push back what runs already.
    free = max(0, num_places - sum(work.is_running for work in load))
    added = [work for work in more if work.rank not in have]
    added = [work for work in added if not work.is_running] + [work for work in added if work.is_running][:free]
    before = Forecast(COSTS, num_places, load).predict(newcomer)
    after = Forecast(COSTS, num_places, [*load, *added]).predict(newcomer)
    assert after.wait >= before.wait - 1e-9
    assert after.first_token >= before.first_token - 1e-9


@given(works, st.integers(1, 8))
def test_the_tokens_owed_are_those_of_all(load: list[Work], num_places: int) -> None:
    assert Forecast(COSTS, num_places, load).tokens_owed == sum(work.prompt + work.answer for work in load)


@given(works, newcomers, st.integers(1, 8))
def test_who_comes_later_in_the_order_does_not_begin_earlier(load: list[Work], newcomer: Work, num_places: int) -> None:
    later = Work((*newcomer.rank[:3], newcomer.rank[3] + 1), newcomer.prompt, newcomer.answer)
    forecast = Forecast(COSTS, num_places, load)
    assert forecast.predict(later).wait >= forecast.predict(newcomer).wait


@given(works, works, newcomers, st.integers(1, 8))
def test_a_forecast_to_which_work_is_added_is_as_if_made_with_it(
    load: list[Work], more: list[Work], newcomer: Work, num_places: int
) -> None:
    have = {work.rank for work in load}
    added = [replace(work, is_running=False) for work in more if work.rank not in have]
    grown = Forecast(COSTS, num_places, load)
    for work in added:
        grown.add(work)
    made = Forecast(COSTS, num_places, [*load, *added])
    assert grown.predict(newcomer) == made.predict(newcomer)
    assert grown.service_seconds(newcomer) == made.service_seconds(newcomer)
    assert (grown.tokens_owed, grown.last_kind, len(grown)) == (made.tokens_owed, made.last_kind, len(made))


def test_a_client_that_is_alone_is_not_behind_anothers_backlog() -> None:
    backlog = [Work((0, False, float(n), n), 0.0, 500.0, is_running=n < 8) for n in range(1, 200)]
    forecast = Forecast(COSTS, 8, backlog)
    assert forecast.predict(Work((0, False, 1.0, 1000), 20.0, 500.0)).wait == 0
    assert forecast.predict(Work((0, False, 200.0, 1000), 20.0, 500.0)).wait > 100


def test_a_flex_request_is_behind_everybody() -> None:
    backlog = [Work((0, False, float(n), n), 0.0, 500.0, is_running=n < 8) for n in range(1, 200)]
    forecast = Forecast(COSTS, 8, backlog)
    assert forecast.predict(Work((0, True, 1.0, 1000), 20.0, 500.0)).wait > 100


def test_a_short_prompt_waits_for_a_part_of_a_long_one() -> None:
    forecast = Forecast(COSTS, 8, [Work((0, False, 1.0, 0), 8000.0, 100.0, is_running=True)])
    short = forecast.predict(Work((0, False, 2.0, 1), 20.0, 100.0)).wait
    long = forecast.predict(Work((0, False, 2.0, 1), 8000.0, 100.0)).wait
    assert short == pytest.approx(60 * COSTS.seconds_per_token)
    assert long == pytest.approx(8000 * COSTS.seconds_per_token)


@pytest.mark.parametrize(("places", "lengths"), [(1, [30]), (4, [10, 40, 80]), (8, [5, 60]), (16, [100])])
def test_it_comes_true_on_the_scheduler(places: int, lengths: Sequence[int]) -> None:
    """Each of many requests begins within a step or two of its prediction, where the lengths are known."""
    engine = EngineInMemory(max_num_sequences=places, target_step_seconds=0.0, kv_cache_tokens=1 << 16)
    steps = costs(fixed=1.0, per_token=0.0, target=0.0)
    requests = [ask(f"r{n}", [n, 1, 2], max_tokens=lengths[n % len(lengths)]) for n in range(60)]
    known: list[Work] = []
    predicted = []
    for number, request in enumerate(requests):
        work = Work((0, False, float(number), number), 3.0, float(request.sampling.max_tokens))
        predicted.append(Forecast(steps, places, known).predict(work).wait)
        known.append(work)
        engine.scheduler.add(request)
    begun: dict[str, int] = {}
    for step in range(10_000):
        if not engine.scheduler.has_work:
            break
        engine.step()
        begun |= dict.fromkeys(engine.scheduler.begun, step)
    for request, wait in zip(requests, predicted, strict=True):
        assert wait == pytest.approx(begun[request.request_id], rel=0.05, abs=2)
