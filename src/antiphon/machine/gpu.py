"""The NVIDIA GPUs of this machine, as `nvidia-smi` lists them, and which device an engine uses.

`nvidia-smi` comes with the driver, so nothing has to be installed or loaded to ask. Owns every reason why a device
cannot be used that can be known before an engine starts.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from antiphon.errors import ConfigError

LEAST_CAPABILITY = (8, 0)  # the first with the int8 tensor instructions that the kernels are compiled to
_QUERY = "name,compute_cap,memory.total,memory.free,driver_version"
_TIMEOUT = 20.0  # seconds; a GPU that nobody used for a while takes some to answer
# Of a GPU's free memory, for CUDA's context, PyTorch and the buffers of a step.
GPU_OVERHEAD_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU; memory in bytes."""

    name: str
    capability: tuple[int, int]
    total: int
    free: int
    driver: str

    @property
    def usable(self) -> int:
        """Bytes for weights and KV cache."""
        return max(0, self.free - GPU_OVERHEAD_BYTES)


def planned_gpu_bytes(engine_bytes: int) -> int:
    """Bytes of a GPU that an engine takes, with what the plan for its weights and KV cache leaves out; 0: not known."""
    return engine_bytes + GPU_OVERHEAD_BYTES if engine_bytes else 0


def see_gpus() -> list[Gpu]:
    """The GPUs in the order of their numbers; none where there is no driver, or it does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return [gpu for line in listed.stdout.splitlines() if (gpu := _parsed(line)) is not None]


def _parsed(line: str) -> Gpu | None:
    try:
        name, capability, total, free, driver = (part.strip() for part in line.split(","))
        major, minor = capability.split(".")
        return Gpu(name, (int(major), int(minor)), int(total) << 20, int(free) << 20, driver)
    except ValueError:  # "[N/A]", or what a driver of another time writes
        return None


def choose_device(wish: str, gpus: Sequence[Gpu] | None = None) -> str:
    """The device of --device `wish`: "cpu", "interpreter", or "cuda:N". `gpus`: those there are; None: looks.

    "auto" is the first GPU if it and the packages for it can be used, else the CPU.

    Raises ConfigError, saying what to do, where the device that was asked for cannot be used.
    """
    if wish == "cpu":
        return wish
    missing = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]
    if wish == "interpreter":
        _refuse_missing(wish, missing)
        return wish
    gpus = see_gpus() if gpus is None else gpus
    if wish == "auto":
        return "cuda:0" if gpus and gpus[0].capability >= LEAST_CAPABILITY and not missing else "cpu"
    number = int(wish.partition(":")[2] or 0)
    if not gpus:
        raise ConfigError(
            f"--device {wish}: there is no NVIDIA GPU, or its driver is not installed (nvidia-smi lists none); "
            "in a container, start it with --gpus all; or use --device cpu"
        )
    if number >= len(gpus):
        names = ", ".join(f"cuda:{i} ({gpu.name})" for i, gpu in enumerate(gpus))
        raise ConfigError(f"--device {wish}: there is no such GPU; there is {names}")
    gpu = gpus[number]
    if gpu.capability < LEAST_CAPABILITY:
        raise ConfigError(
            f"--device {wish}: the {gpu.name} has compute capability {gpu.capability[0]}.{gpu.capability[1]}; "
            "8.0 or later is needed (A100, RTX 30 or newer); use --device cpu"
        )
    _refuse_missing(wish, missing)
    return f"cuda:{number}"


def _refuse_missing(wish: str, missing: Sequence[str]) -> None:
    if missing:
        raise ConfigError(f"--device {wish} needs {' and '.join(missing)}: pip install 'antiphon[gpu]'")


def gpu_memory(device: str, gpus: Sequence[Gpu] | None = None) -> int:
    """Bytes for weights and KV cache on the device "cuda:N" that `choose_device` chose."""
    gpus = see_gpus() if gpus is None else gpus
    number = int(device.partition(":")[2])
    return gpus[number].usable if number < len(gpus) else 0
