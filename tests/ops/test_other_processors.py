"""The same bits on processors that this machine is not, emulated by QEMU, whose floating-point unit is software."""

from __future__ import annotations

import subprocess
import sys

import pytest
from programs import emulator

from antiphon.runtime.fingerprint import EXPECTED

PROGRAM = "from antiphon.runtime.cpu import fingerprints; print(*map(':'.join, fingerprints().items()))"


@pytest.mark.slow
def test_a_processor_of_2008_without_avx_computes_the_same_bits() -> None:
    """Nor has it FMA, so the C library chooses other code there too."""
    command = [emulator(), "-cpu", "Nehalem", sys.executable, "-c", PROGRAM]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split() == [f"scalar:{EXPECTED}"]
