"""Which device an engine uses, and why one cannot be used: said before anything is loaded."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from antiphon.config import EngineConfig
from antiphon.errors import ConfigError
from antiphon.machine import gpu
from antiphon.machine.gpu import Gpu, choose_device, gpu_memory, see_gpus

A100 = Gpu("NVIDIA A100", (8, 0), 80 << 30, 70 << 30, "570.1")
T4 = Gpu("Tesla T4", (7, 5), 15 << 30, 14 << 30, "570.1")


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The packages that are missing."""
    missing: set[str] = set()
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None if name in missing else object())
    return missing


def test_the_cpu_needs_neither_gpu_nor_packages(packages: set[str]) -> None:
    packages |= {"torch", "triton"}
    assert choose_device("cpu", []) == "cpu"
    assert choose_device("auto", [A100]) == "cpu"


def test_auto_takes_the_first_gpu_if_it_can_be_used(packages: set[str]) -> None:
    assert choose_device("auto", [A100, T4]) == "cuda:0"
    assert choose_device("auto", [T4]) == "cpu"
    assert choose_device("auto", []) == "cpu"


@pytest.mark.parametrize(
    ("wish", "gpus", "missing", "message"),
    [
        ("cuda", [], set(), "no NVIDIA GPU, or its driver is not installed"),
        ("cuda:2", [A100, T4], set(), "there is cuda:0 (NVIDIA A100), cuda:1 (Tesla T4)"),
        ("cuda:1", [A100, T4], set(), "the Tesla T4 has compute capability 7.5; 8.0 or later is needed"),
        ("cuda", [A100], {"triton"}, "needs triton: pip install 'antiphon[gpu]'"),
        ("interpreter", [], {"torch", "triton"}, "needs torch and triton: pip install 'antiphon[gpu]'"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(
    packages: set[str], wish: str, gpus: list[Gpu], missing: set[str], message: str
) -> None:
    packages |= missing
    with pytest.raises(ConfigError) as refusal:
        choose_device(wish, gpus)
    assert message in refusal.value.message
    assert wish in refusal.value.message


def test_gpus_are_as_nvidia_smi_lists_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        "echo 'NVIDIA H100 80GB HBM3, 9.0, 81559, 81000, 570.86'\n"
        "echo 'Broken, [N/A], [N/A], [N/A], 570.86'\n"
        "echo 'Tesla T4, 7.5, 15360, 14000, 570.86'\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    first, second = see_gpus()
    assert first == Gpu("NVIDIA H100 80GB HBM3", (9, 0), 81559 << 20, 81000 << 20, "570.86")
    assert second.name == "Tesla T4"
    assert gpu_memory("cuda:0", [first]) == 81000 << 20
    program.write_text("#!/bin/sh\nexit 9\n")  # a driver that does not answer
    assert see_gpus() == []


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:x", "cuda:1234", ""])
def test_a_device_that_cannot_be_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match="--device"):
        EngineConfig("m.gguf", device=device)


def test_a_gpu_has_an_int8_cache_alone() -> None:
    with pytest.raises(ConfigError, match="--kv-cache-type f16 is for the CPU"):
        EngineConfig("m.gguf", device="cuda", kv_cache_type="f16")
