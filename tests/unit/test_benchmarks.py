"""The benchmarks: every script starts, and what they decide by figures can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from soak import Sample, growth, trends
from users import percentile

FOLDER = Path(__file__).parents[2] / "benchmarks"
# One process for all of them: importing PyTorch once is dear enough.
START = """
import runpy, sys
for path in sys.argv[1:]:
    sys.argv = [path, "--help"]
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as ending:
        if ending.code:
            raise
"""


@pytest.mark.slow
def test_every_benchmark_starts():
    scripts = sorted(str(path) for path in FOLDER.glob("*.py") if "__main__" in path.read_text())
    assert len(scripts) > 15
    run = subprocess.run(
        [sys.executable, "-c", START, *scripts],
        env={"PYTHONPATH": str(FOLDER), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("usage:") == len(scripts)


def course(role: str, memory: list[float], descriptors: int = 30, pid: int = 1) -> list[Sample]:
    """A process sampled every 5 seconds."""
    return [Sample(5.0 * at, role, pid, int(each), descriptors, 4) for at, each in enumerate(memory)]


def test_the_soak_test_tells_a_leak_from_noise():
    draw = Random(1)  # noqa: S311
    noisy = [100e6 + draw.uniform(-3e6, 3e6) for _ in range(360)]
    leaking = [each + 30e3 * at for at, each in enumerate(noisy)]  # 10.8 MB in half an hour
    spike = [each + 50e6 * (at % 90 == 0) for at, each in enumerate(noisy)]
    flat = {row["quantity"]: row["flat"] for row in trends(course("front", noisy), 1800, 0)}
    assert flat == {"memory_bytes": True, "descriptors": True, "threads": True}
    assert [row["flat"] for row in trends(course("front", spike), 1800, 0)] == [True, True, True]
    assert [row["flat"] for row in trends(course("front", leaking), 1800, 0)] == [False, True, True]


def test_the_soak_test_compares_an_engine_with_itself_alone():
    small = course("engine", [50e6] * 240, pid=1)
    large = [Sample(each.at + 1200, "engine", 2, 90_000_000, 30, 4) for each in course("engine", [90e6] * 120)]
    rows = trends([*small, *large], 1800, 1195)
    assert [row["flat"] for row in rows] == [True, True, True]
    assert rows[0]["first"] == rows[0]["last"] == 90e6


def test_growth_is_the_rise_of_the_line():
    assert growth([0, 1, 2, 3, 4], [10, 12, 14, 16, 18]) == 8
    assert growth([0, 1], [1, 9]) == 0  # too little to say


def test_a_percentile_is_a_value_that_was_seen():
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert percentile([float(each) for each in range(1, 101)], 0.95) == 95.0
    assert percentile([7.0], 0.95) == 7.0
    assert percentile([], 0.5) is None
