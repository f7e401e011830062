"""The search for the heaviest load, on servers that are simulated and noisy."""

from __future__ import annotations

# ruff: noqa: S311
import asyncio
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.bench.knee import Knee, Trial, find_knee, knee_of


def search(is_met: Callable[[int, int], bool], **options: object) -> tuple[Knee, list[tuple[int, bool]]]:
    """The knee, and every stage that was run for it."""
    stages: list[tuple[int, bool]] = []

    async def run_stage(load: int, repeat: int) -> bool:
        assert repeat == sum(each == load for each, _ in stages)
        stages.append((load, is_met(load, repeat)))
        return stages[-1][1]

    return asyncio.run(find_knee(run_stage, **options)), stages  # type: ignore[arg-type]


@given(st.integers(0, 300), st.integers(1, 40), st.integers(1, 256))
def test_without_noise_the_knee_is_exact(truth: int, first: int, most: int) -> None:
    knee, stages = search(lambda load, _: load <= truth, first=first, most=most)
    assert knee.load == (min(truth, most) or None)
    assert knee.too_much == (truth + 1 if truth < most else None)
    assert all(1 <= load <= most for load, _ in stages)
    assert len({load for load, _ in stages}) <= 18  # doubling and bisecting


@given(st.integers(1, 200), st.floats(0.05, 0.5))
def test_a_coarse_search_is_right_within_its_resolution(truth: int, resolution: float) -> None:
    knee, _ = search(lambda load, _: load <= truth, most=256, resolution=resolution)
    assert knee.load is not None
    assert knee.load <= truth <= knee.load + max(1, knee.load * resolution)


@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_whatever_the_noise_the_search_ends_and_its_stages_tell_the_same(seed: int, share: float) -> None:
    draw = Random(seed)
    knee, stages = search(lambda load, _: draw.random() < share, most=64)
    assert knee_of(stages) == knee
    if knee.load is not None:
        trial = next(each for each in knee.trials if each.load == knee.load)
        assert trial.stages >= 5
        assert trial.met >= 4


def test_one_unlucky_stage_misleads_nobody() -> None:
    unlucky = {(4, 0), (8, 1), (12, 0)}
    knee, _ = search(lambda load, repeat: load <= 12 and (load, repeat) not in unlucky, most=64)
    assert knee.load == 12


def test_on_a_noisy_server_the_knee_is_near_the_truth() -> None:
    """P95 of a server whose latency doubles in four users; the objective is met up to 20 of them, in the median."""
    draw = Random(1)
    found = []
    for _ in range(100):
        knee, _ = search(lambda load, _: 2 ** ((load - 20) / 4) * draw.lognormvariate(0, 0.1) < 1, most=64)
        found.append(knee.load or 0)
    assert sum(17 <= load <= 21 for load in found) >= 95


@pytest.mark.parametrize(("met", "stages", "least"), [(5, 5, 0.549), (4, 5, 0.343), (0, 3, 0.0), (10, 10, 0.741)])
def test_the_confidence_is_clopper_and_pearsons(met: int, stages: int, least: float) -> None:
    assert Trial(1, met, stages).share_at_least == pytest.approx(least, abs=1e-3)


def test_a_knee_is_told_in_a_sentence() -> None:
    knee, _ = search(lambda load, _: load <= 12, most=64)
    assert knee.sentence == (
        "The objectives are kept up to 12 users (5 of 5 stages, so at least 55 % of such stages, with 95 % confidence)."
        " With 13 users they are not."
    )
    assert search(lambda *_: False)[0].sentence == "The objectives are not kept, not even with 1 user."
    assert search(lambda *_: True, most=4)[0].sentence.endswith("More was not tried.")
