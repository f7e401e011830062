"""The prediction of a step's time: what it reads from machine code, and that the document's tables are its results."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "benchmarks" / "gpu"
RESULT = ROOT / "benchmarks" / "results" / "gpu" / "step-time.json"
SASS = """
        /*0010*/                   LDG.E.64 R2, desc[UR4][R2.64] ;
.L_x_0:
        /*0020*/               @P0 LDGSTS.E.64 [R3+0x1900], desc[UR22][R4.64] ;
.L_x_1:
        /*0030*/                   LDG.E.U16 R14, desc[UR22][R14.64] ;
        /*0040*/                   IMMA.16832.S8.S8.SAT R12, R12.ROW, R26.COL, RZ ;
        /*0050*/                   LDGSTS.E.64 [R19], desc[UR22][R12.64], !P4 ;
        /*0060*/               @P1 BRA `(.L_x_1) ;
        /*0070*/               @P2 BRA `(.L_x_0) ;
        /*0080*/                   BRA `(.L_x_2) ;
.L_x_2:
        /*0090*/                   EXIT ;
"""


@pytest.fixture
def step_time(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(FOLDER)
    import step_time

    return step_time


def test_the_innermost_loop_with_tensor_instructions_is_counted(step_time: Any) -> None:
    import machine_code

    assert machine_code.main_loop(SASS) == machine_code.Loop(instructions=4, tensor=1, loads=1, copies=1)
    assert machine_code.main_loop(SASS.replace("IMMA", "IMAD")) == machine_code.Loop()


def test_the_documents_tables_are_the_committed_prediction(step_time: Any) -> None:
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    assert found["confirmed_on_a_gpu"] is False
    document = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    for weights in ("W4", "W8"):
        assert step_time.table(found["steps"], weights) in document


def test_a_step_is_predicted_from_what_is_compiled(tmp_path: Path) -> None:
    """In a process of its own: here, Triton interprets."""
    output = tmp_path / "times.json"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path / "triton")
    command = [sys.executable, FOLDER / "step_time.py", "--gpus", "H100", "--users", "1", "--types", "Q4_0"]
    subprocess.run([*command, "--json", output], check=True, env=environment, capture_output=True)
    short, long = json.loads(output.read_text())["steps"]
    assert (short["users"], short["context"], long["context"]) == (1, 128, 1000)
    assert 9 * 28 < short["launches"] <= 9 * 28 + 10  # of the layers, and of what is before and after them
    layer, head = 1536 * (2048 + 1536 + 3 * 8960) * 18 / 32, 1536 * 151_936 * 34 / 32
    assert short["roofline_ms"] == pytest.approx((28 * layer + head + 128 * 14_896) / 3.0e12 * 1e3, abs=0.01)
    for step in (short, long):
        assert step["predicted_ms"] > step["roofline_ms"]
        assert math.isclose(sum(step["bounds"].values()), 1, abs_tol=0.03)
        assert math.isclose(sum(step["kernels_ms"].values()), step["predicted_ms"], abs_tol=0.02)
    assert long["kernels_ms"]["attend"] > short["kernels_ms"]["attend"]
