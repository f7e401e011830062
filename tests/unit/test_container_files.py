"""The files that make containers: checked by the tools of their formats, and against the package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
CONTAINERFILE = (ROOT / "Containerfile").read_text()


def instructions(stage: str) -> list[str]:
    """The instructions of a Containerfile's stage, continued lines joined."""
    lines = [line for line in stage.splitlines() if line and not line.startswith("#")]
    return "\n".join(lines).replace("\\\n", "").splitlines()


def test_hadolint_finds_nothing_in_the_containerfile():
    finished = subprocess.run([TOOLS / "hadolint", ROOT / "Containerfile"], capture_output=True, text=True)
    assert (finished.returncode, finished.stdout) == (0, "")


def test_the_image_has_no_compiler_runs_without_root_and_checks_its_health():
    build, final = re.split(r"^FROM \$\{BASE\}.*$", CONTAINERFILE, flags=re.M)[1:]
    assert "g++" in build
    for_gpus = 'if [ "${EXTRAS}" = gpu ]; then compiler="gcc libc6-dev python3-dev"; fi'  # Triton compiles
    assert re.search(r"^ARG EXTRAS=$", CONTAINERFILE, re.M), "by default there are no extras"
    lines = [line.replace(for_gpus, "") for line in instructions(final)]
    assert not [line for line in lines if re.search(r"g\+\+|gcc|python3-dev|--from=(?!build )", line)]
    kept = dict(line.split(" ", 1) for line in instructions(final) if not line.startswith(("RUN", "COPY", "ARG")))
    assert kept["USER"] == "10001:10001"
    assert kept["STOPSIGNAL"] == "SIGTERM"
    assert kept["HEALTHCHECK"].endswith('CMD ["python3", "-m", "antiphon.health_check"]')
    assert kept["ENTRYPOINT"] == '["tini", "--", "antiphon"]'


def test_the_commands_that_build_for_gpus_name_the_same_image_of_nvidias():
    """In the Makefile, in Compose and as an example in the Containerfile; its Ubuntu has Python 3.12."""
    texts = [CONTAINERFILE, *((ROOT / name).read_text() for name in ("Makefile", "deploy/compose.gpu.yaml"))]
    named = [set(re.findall(r"docker\.io/nvidia/cuda:[\w.-]+", text)) for text in texts]
    assert named == [{"docker.io/nvidia/cuda:13.0.2-base-ubuntu24.04"}] * 3


def test_a_build_is_sent_what_it_needs_and_nothing_else():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert allowed == {
        "CMakeLists.txt",
        "LICENSE",
        "README.md",
        "constraints.txt",
        "native",
        "pyproject.toml",
        "src",
        "dist/*.whl",
    }
    assert all((ROOT / name).exists() for name in allowed if "*" not in name)
    assert "**/*.so" in lines  # modules that were compiled for this machine's Python
