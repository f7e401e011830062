"""Reproduces the problems that people ask about most: what the server says, and what the doctor finds.

Limits are those of real control groups. The other rows of docs/troubleshooting.md name tests elsewhere.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_antiphon
from control_groups import ControlGroup, control_group
from tiny_folders import write_random_folder

from antiphon.errors import CheckpointError
from antiphon.formats import open_checkpoint
from antiphon.machine.kernel_files import read

ANTIPHON = (sys.executable, "-m", "antiphon")
_BURN = """
import sys
from antiphon import _native
roofline = _native.Roofline(_native.Device("auto", int(sys.argv[1])), 1 << 20)
print(roofline.products_per_second(0.5) > 0)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that can be served, with real kernels."""
    return write_random_folder(tmp_path_factory.mktemp("troubles") / "model", "qwen2")


def serve(group: ControlGroup, model: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A server that ends by itself, in a group."""
    command = group.command(*ANTIPHON, "serve", str(model), "--port", "0", *options)
    return subprocess.run(command, capture_output=True, text=True)


def problems(output: str) -> str:
    """What the doctor calls a problem, one a line."""
    return "\n".join(each["what"] for each in json.loads(output)["findings"] if each["level"] == "problem")


def doctor(group: ControlGroup, *arguments: str) -> str:
    """The doctor's problems in a group."""
    command = group.command(*ANTIPHON, "doctor", *arguments, "--json", "--port", "0")
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    return problems(result.stdout)


def test_a_model_that_does_not_fit_into_its_container_is_refused_before_it_is_loaded(model):
    size = 200 << 20
    with control_group("memory", {"memory.limit_in_bytes": size, "memory.max": size}) as group:
        refused, found = serve(group, model), doctor(group, str(model))
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: there is not enough memory for the weights and a KV cache")
    assert "there is not enough memory for the weights and a KV cache" in found


def test_more_threads_than_the_cpu_quota_are_stopped_again_and_again(model):
    cpus, period = 0.3, 100_000  # so few that four threads exceed it however busy the machine is
    quota = int(cpus * period)
    limits = {"cpu.cfs_quota_us": quota, "cpu.max": f"{quota} {period}"}
    with control_group("cpu", limits) as group:
        subprocess.run(group.command(sys.executable, "-c", _BURN, "4"), check=True, capture_output=True)
        found = doctor(group, "--threads", "4")
        stat = dict(line.split() for line in read(group.path / "cpu.stat").splitlines())
    assert int(stat["nr_throttled"]) > 0
    assert f"--threads 4 is more than this process may use (the control group allows {cpus:g} CPUs)" in found


def test_an_engine_that_may_not_start_its_threads_ends_the_server_with_the_reason(model):
    with control_group("pids", {"pids.max": 16}) as group:
        ended, found = serve(group, model, "--threads", "16"), doctor(group)
    assert ended.returncode == 1
    assert "--threads 16: only" in ended.stderr
    assert "raise the limits on processes and memory" in ended.stderr
    assert "may have 16 processes and threads" in found


def test_links_without_their_files_are_what_a_container_sees_of_half_a_cache(model, tmp_path, monkeypatch, capsys):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1f3c"
    shutil.copytree(model, blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    assert "there is" not in problems(run_antiphon("doctor", str(snapshot), "--json", "--port", "0").output)
    blobs.rename(tmp_path / "elsewhere")  # as it is in a container that has the snapshots alone
    found = problems(run_antiphon("doctor", str(snapshot), "--json", "--port", "0").output)
    assert "is a link to ../../blobs/" in found
    with pytest.raises(CheckpointError, match=r"the folder has no config\.json"):  # with which the server ends
        open_checkpoint(snapshot)


def test_a_file_that_was_cut_off_while_it_was_copied_is_refused_by_name(model, tmp_path):
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert str(weights) in problems(run_antiphon("doctor", str(copy), "--json", "--port", "0").output)
    with pytest.raises(CheckpointError, match=re.escape(f"{weights}: ")):
        open_checkpoint(copy)
