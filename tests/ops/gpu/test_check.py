"""The script for a GPU that is at hand for minutes runs, on the interpreter, and keeps to its time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "gpu" / "check.py"


def test_the_script_compares_bits_first_and_names_what_it_left_out(tmp_path: Path) -> None:
    output = tmp_path / "check.json"
    command = [sys.executable, SCRIPT, "--device", "interpreter", "--seconds", "0.1", "--output", output]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(output.read_text())
    assert [row["equal"] for row in found["identity"]] == [True]
    assert found["left_out"] == ["the rest of identity", "bandwidth", "products", "steps"]
