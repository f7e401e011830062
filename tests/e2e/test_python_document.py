"""docs/python.md is true: its blocks run, as one program, with the real model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE

pytestmark = [pytest.mark.model, pytest.mark.slow]

DOCUMENT = Path(__file__).parents[2] / "docs" / "python.md"


def test_every_block_runs(demo_model: Path):
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) > 5
    program = "\n".join(blocks).replace('Engine("demo"', f'Engine("{demo_model}"')
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=PATIENCE, env=os.environ
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "The capital of France is Paris." in done.stdout
