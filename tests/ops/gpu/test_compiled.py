"""What Triton's compiler makes of the kernels for real GPUs: nothing spilled, tensor instructions, no other rounding.

A part of what benchmarks/gpu/compile.py compiles, for the time it takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
CHOSEN = (
    "80:ROWS=32,linear BITS=4 BYTE_ROWS=64 TOKENS=64 wide,narrow,draw_by_weight",
    "86:linear BITS=8 BYTE_ROWS=16 TOKENS=16 wide,rope_and_store PAIRS=2 ROWS=1",
    "89:linear_silu_mul BITS=4 BYTE_ROWS=32 TOKENS=8",
    "90:rms_norm,PAIRS=2 ROWS=16,fold,choose,correct_panels BITS=8 TOKENS=8,linear BITS=8 BYTE_ROWS=64",
    "90:embed,take,summarize,weigh,keep,draw_likeliest",
    "gfx942:linear BITS=8 BYTE_ROWS=16 TOKENS=8",
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of a process of its own: here, Triton interprets."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    command = [sys.executable, ROOT / "benchmarks" / "gpu" / "compile.py", "--json", *CHOSEN]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.stdout, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("target", sorted({chosen.partition(":")[0] for chosen in CHOSEN}))
def test_kernels_compile_without_spills_and_keep_their_rounding(report: Any, target: str) -> None:
    results = [result for result in report["compiled"] if result["target"] == target]
    assert results
    assert {result["kernel"]: result["faults"] for result in results if result["faults"]} == {}


def test_every_kernel_of_a_step_is_compiled(report: Any) -> None:
    """The interpreter accepts what the compiler does not, such as a name with two types in the branches of an `if`."""
    compiled = {result["kernel"].split()[0] for result in report["compiled"]}
    assert report["launches"].keys() - compiled == set()


def test_a_layer_is_nine_launches(report: Any) -> None:
    """With the embedding, the head's five and the two of a greedy draw, 28 layers are 260."""
    of_the_head = {
        "take": 1,
        "rms_norm": 1,
        "linear": 1,
        "choose_panels": 1,
        "correct_panels": 1,
        "embed": 1,
        "summarize": 1,
        "draw_likeliest": 1,
    }
    of_a_layer = {"rms_norm": 2, "linear": 3, "rope_and_store": 1, "attend": 1, "fold": 1, "linear_silu_mul": 1}
    names = of_the_head.keys() | of_a_layer.keys()
    assert report["launches"] == {name: of_the_head.get(name, 0) + of_a_layer.get(name, 0) for name in names}
