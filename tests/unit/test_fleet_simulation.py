"""The simulated fleet: its steps are those of real engines, its step model that of real steps, its figures by hand."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fleet_waves
import pytest
from fleet_figures import Window, fairness, jain, max_min_shares, percentile, tokens_in, waits
from fleet_report import markdown
from fleet_steps import Curve, StepModel, errors_of
from fronts import running_client

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def run(*words: str) -> str:
    """A program of the benchmarks or the helpers, in a process of its own, since it replaces the clock."""
    paths = f"{ROOT / 'benchmarks'}:{ROOT / 'tests' / 'helpers'}"
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def signal_engines(client: Any, number: signal.Signals) -> None:
    for view in client.engines():
        assert view.pid
        os.kill(view.pid, number)


async def test_simulated_engines_take_the_same_steps_as_real_ones() -> None:
    """Each step of each engine: how many tokens, whose requests begin and end in it; and all prefix hits.

    Real engines are stopped while a wave is sent, so that all of it has arrived before the first step.
    """
    steps = fleet_waves.Steps()
    async with running_client(engines=fleet_waves.NUM_ENGINES, **fleet_waves.SIZES) as client:
        steps.watch(client)
        for wave in fleet_waves.waves():
            signal_engines(client, signal.SIGSTOP)
            try:
                streams = await fleet_waves.ask_all(client, wave)
                await asyncio.sleep(0)
            finally:
                signal_engines(client, signal.SIGCONT)
            await fleet_waves.read_all(streams)
        real = {"steps": dict(steps.seen), **fleet_waves.counts_of(client)}
    simulated = json.loads(run(str(ROOT / "tests" / "helpers" / "fleet_waves.py")))
    assert simulated["steps"].keys() == {"1", "2"}
    for engine, taken in simulated["steps"].items():
        assert real["steps"][engine] == taken
    assert real == simulated
    assert real["num_prefix_hits"] > 500, "the waves share nothing"


def test_a_small_fleet_survives_a_death_and_its_figures_are_complete(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    words = ["--engines", "3", "--seconds", "60", "--engine-seconds", "180", "--runs", "usual,death"]
    run(str(ROOT / "benchmarks" / "fleet.py"), *words, "--json", str(path))
    usual, death = json.loads(path.read_text())["runs"]
    assert usual["requests"] > 10
    assert usual["prefix_hits"] > 0.3
    assert 0 < usual["first_token"]["p50"] <= usual["first_token"]["p99"]
    cost = death["death"]
    assert cost["requests"] > 0
    assert cost["lost"] == 0
    assert 0 < cost["recomputed_tokens"] <= cost["known_tokens"]
    assert cost["pause_max"] < 60
    table = markdown({"runs": [usual, death]})
    assert table.count("| 3 | usual |") == 3


@pytest.mark.parametrize("name", ["r1-zen4/steps.json", "r1-emerald-rapids/steps-amx.json"])
def test_the_step_model_is_near_every_step_that_was_measured(name: str) -> None:
    errors = errors_of(StepModel.from_steps(RESULTS / name), RESULTS / name)
    assert max(map(abs, errors)) < 0.15
    assert sum(map(abs, errors)) / len(errors) < 0.05


def test_a_curve_goes_through_its_points_and_on_beyond_them() -> None:
    curve = Curve.through([(1, 10.0), (3, 20.0), (3, 30.0), (3, 28.0), (5, 32.0)])
    assert [curve(at) for at in (0, 1, 2, 3, 4, 5, 7)] == pytest.approx([1, 10, 19, 28, 30, 32, 36])


@dataclass
class Request:
    """One request as a client saw it."""

    key: str
    sent: float
    wanted_tokens: int
    arrivals: list[float] = field(default_factory=list)
    refusals: int = 0

    @property
    def first_token(self) -> float:
        return self.arrivals[0] - self.sent


def test_what_counts_is_what_happens_within_the_window() -> None:
    window = Window(10.0, 40.0)
    seen = [
        Request("a", 5.0, 3, [9.0, 11.0, 12.0]),  # sent before it, with two tokens inside
        Request("a", 10.0, 2, [12.0, 13.0]),
        Request("b", 20.0, 2, [21.0, 41.0]),
        Request("b", 25.0, 7, refusals=2),
        Request("b", 35.0, 7),  # too late to be counted as unanswered
    ]
    found = waits(seen, window)
    assert found["requests"] == 3
    assert found["refused"] == pytest.approx(1 / 3)
    assert found["first_token"] == {"p50": 1.0, "p95": 2.0, "p99": 2.0}
    assert tokens_in(seen, window) == 5


def test_fair_is_who_gets_the_max_min_share() -> None:
    assert max_min_shares({"a": 1, "b": 5, "c": 9}, 9) == {"a": 1, "b": 4, "c": 4}
    assert max_min_shares({"a": 1, "b": 2}, 9) == {"a": 1, "b": 2}
    assert jain([1, 1, 1, 1]) == 1
    assert jain([1, 0, 0, 0]) == 0.25
    assert jain([0, 0]) is None
    greedy = [Request("heavy", 1.0, 9, [1.0 + at / 10 for at in range(9)]), Request("light", 1.0, 9, refusals=1)]
    found = fairness(greedy, Window(0.0, 30.0))
    assert found["heavy"] == 2
    assert found["least_of_others"] == 0
    assert found["jain"] == 0.5


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([], 0.5) is None
    assert [percentile(range(1, 101), share) for share in (0.01, 0.5, 0.95, 1.0)] == [1, 50, 95, 100]
    assert percentile([3.0], 0.99) == 3.0
