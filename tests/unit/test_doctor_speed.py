"""`antiphon doctor --speed`: how figures are judged, and one short measurement of a real model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny_folders import write_random_folder
from typer.testing import CliRunner

from antiphon.cli import app
from antiphon.doctor import speed
from antiphon.doctor.findings import Level


@pytest.mark.parametrize(
    ("seconds", "share", "level"),
    [(0.05, 0.71, "ok"), (0.05, 0.49, "warning"), (0.001, 0.1, "ok")],
)
def test_a_step_that_does_not_reach_half_of_what_memory_allows_is_a_warning(seconds, share, level):
    found = speed.judge_decode(seconds, share)
    assert found.level == level
    assert f"reaches {share:.0%} of what this machine's memory allows" in found.what


@pytest.mark.parametrize(
    ("share", "usual", "level"),
    [(0.1, 0.12, "ok"), (0.05, 0.12, "warning"), (0.5, 0.58, "ok"), (0.2, 0.58, "warning"), (0.01, None, "ok")],
)
def test_prompts_are_judged_by_what_is_usual_on_the_instruction_set(share, usual, level):
    assert speed.judge_prefill(256, 1.0, share, usual).level == level


def test_rates_that_are_not_steady_are_told():
    rates = {"bytes": 20e9, "products": 500e9}
    steady = list(speed.judge_limits(rates, {"bytes": [19e9, 21e9], "products": [490e9, 510e9]}))
    assert [found.level for found in steady] == [Level.OK]
    assert steady[0].what == "memory is read at 20.0 GB/s, 500 G products/s"
    shared = list(speed.judge_limits(rates, {"bytes": [10e9, 21e9], "products": [490e9, 510e9]}))
    assert shared[1].what == "the speed of memory is not steady: 10.0 to 21.0 G/s"


def test_a_model_is_measured_against_the_limits_of_this_machine(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(speed, "BUFFER_BYTES", 64 << 20)
    folder = write_random_folder(tmp_path / "model", "qwen2")
    decode, prefill = speed.model_speed(folder, threads=1, seconds=0.0)
    took = re.match(r"a step for one user takes ([\d.]+) ms \(([\d,]+) tokens/s\) and reaches (\d+)% of ", decode.what)
    assert took
    assert all(float(number.replace(",", "")) >= 0 for number in took.groups())
    assert re.match(
        r"prompts are computed at [\d,]+ tokens/s, \d+% of what this machine's products allow", prefill.what
    )


def test_a_running_server_is_not_measured_so():
    result = CliRunner().invoke(app, ["doctor", "http://127.0.0.1:9", "--speed"])
    assert result.exit_code != 0
    assert "antiphon bench" in str(result.exception)
