"""The native tests, built with AddressSanitizer and UndefinedBehaviorSanitizer, each in a process of its own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "sanitizers"  # kept, so that only what changed is compiled again


@pytest.fixture(scope="module")
def native_tests() -> Path:
    """The test program's path."""
    cmake = shutil.which("cmake") or shutil.which("cmake", path=str(ROOT / ".venv" / "bin"))
    if cmake is None:
        pytest.skip("there is no cmake to build the native tests with")
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        pytest.skip("there is no C++ compiler to build the native tests with")
    options = ["-DANTIPHON_TESTS=ON", "-DANTIPHON_PYTHON=OFF", "-DANTIPHON_SANITIZE=ON"]
    _succeed([cmake, "-S", str(ROOT), "-B", str(BUILD), *options])
    _succeed([cmake, "--build", str(BUILD), "--parallel", str(len(os.sched_getaffinity(0)))])
    return BUILD / "native" / "tests" / "native_tests"


def _succeed(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stdout[-4000:]}\n{result.stderr[-8000:]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["attention", "fuzz", "lm_head", "memory", "products", "program", "quantize", "sampler", "threads", "tiles"]
)
def test_clean_under_the_sanitizers(native_tests: Path, name: str) -> None:
    _succeed([str(native_tests), name])
