"""The script for a GPU that is at hand for minutes runs to its end, on the interpreter with tiny sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "gpu" / "check.py"
PARTS = ["identity", "bandwidth", "products", "steps", "memory", "transformers"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What the script wrote to its file, and what it printed."""
    output = tmp_path_factory.mktemp("check") / "check.json"
    command = [sys.executable, SCRIPT, "--device", "interpreter", "--quick", "--seconds", "10000", "--output", output]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text()), done.stdout


def test_all_parts_run_and_bits_are_compared_first(run: tuple[dict[str, Any], str]) -> None:
    found, printed = run
    assert (found["left_out"], found["failed"]) == ([], {})
    assert [name for name in found if name in PARTS] == PARTS
    assert [row["equal"] for row in found["identity"]] == [True]
    assert printed.index("\nidentity:\n") < printed.index("\nproducts:\n") < printed.index("\ntransformers:\n")
    assert json.loads(printed.splitlines()[-1]) == found


def test_steps_have_ours_and_those_of_transformers(run: tuple[dict[str, Any], str]) -> None:
    found, _ = run
    kinds = [(row["weights"], row["sampling"]) for row in found["steps"]]
    assert kinds == [(weights, how) for weights in ("Q4_0", "Q8_0") for how in ("greedy", "sampled")]
    assert [row["kind"] for row in found["transformers"]] == ["eager", "static"]
    for row in (*found["steps"], *found["transformers"]):
        assert (row["users"], row["context"]) == (2, 64)
        assert row["milliseconds"] > 0 < row["tokens_per_second"]
    assert all(row["roofline_milliseconds"] > 0 for row in found["steps"])


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import check

    return check


def test_what_there_is_no_time_for_is_named(check: Any) -> None:
    def two_rows(_: Any) -> Iterator[dict[str, Any]]:
        yield {"equal": True}
        raise AssertionError("the time was up")

    late = check.Check("interpreter", -1.0)
    late.run("steps", two_rows, 1.0)
    assert late.found["left_out"] == ["steps"]
    short = check.Check("interpreter", 1e6)
    short.run("identity", two_rows, 0.0)
    assert (short.found["identity"], short.found["left_out"]) == ([{"equal": True}], ["the rest of identity"])
    assert short.is_sound()


@pytest.mark.parametrize("rows", [[], [{"equal": False}, {"equal": True}]])
def test_the_script_fails_if_bits_differ_or_none_were_compared(check: Any, rows: list[dict[str, Any]]) -> None:
    examined = check.Check("interpreter", 1e6)
    examined.run("identity", lambda _: iter(rows), 1.0)
    assert not examined.is_sound()


def test_a_part_that_fails_is_named_and_the_others_run(check: Any, capfd: pytest.CaptureFixture[str]) -> None:
    def fail(_: Any) -> Iterator[dict[str, Any]]:
        yield {"rows": 1}
        raise RuntimeError("CUDA error: out of memory")

    examined = check.Check("interpreter", 1e6)
    examined.run("identity", lambda _: iter([{"equal": True}]), 1.0)
    examined.run("products", fail, 1.0)
    examined.run("steps", lambda _: iter([{"users": 1}]), 1.0)
    assert examined.found["failed"] == {"products": "RuntimeError: CUDA error: out of memory"}
    assert (examined.found["products"], examined.found["steps"]) == ([{"rows": 1}], [{"users": 1}])
    assert not examined.is_sound()
    assert "failed: products" in check.tables(examined.found)
