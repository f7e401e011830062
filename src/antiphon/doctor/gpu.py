"""Checks of NVIDIA GPUs: which there are and whether an engine can use them, and what is missing for that."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator

from antiphon.doctor.findings import Finding, note, ok, warning
from antiphon.doctor.memory import amount
from antiphon.machine.gpu import LEAST_CAPABILITY, Gpu, see_gpus

_PACKAGES = {"torch": "PyTorch", "triton": "Triton", "pynvml": "nvidia-ml-py"}  # by the names of their modules


def gpus() -> Iterator[Finding]:
    """The GPUs that the driver lists."""
    found = see_gpus()
    if not found:
        yield ok("no NVIDIA GPU, or no driver for it (nvidia-smi lists none)")
    for number, gpu in enumerate(found):
        have = f"cuda:{number}: {_described(gpu)}"
        if gpu.capability >= LEAST_CAPABILITY:
            yield ok(have)
        else:
            yield note(
                have,
                why="The kernels need compute capability 8.0 or later: A100, RTX 30 or newer.",
                fix="antiphon serve MODEL --device cpu",
            )
    if any(gpu.capability >= LEAST_CAPABILITY for gpu in found):
        yield from _needs()


def _described(gpu: Gpu) -> str:
    capability = ".".join(map(str, gpu.capability))
    memory = f"{amount(gpu.free)} of {amount(gpu.total)} memory are free"
    return f"{gpu.name}, compute capability {capability}, driver {gpu.driver}; {memory}"


def _needs() -> Iterator[Finding]:
    """What --device cuda needs besides a GPU and its driver."""
    missing = [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        yield note(
            f"not installed: {', '.join(missing)}",
            why="--device cuda needs PyTorch and Triton, and metrics of the GPU need nvidia-ml-py.",
            fix="pip install 'antiphon[gpu]'",
        )
    if not (os.environ.get("CC") or any(map(shutil.which, ("gcc", "clang", "cc")))):
        yield warning(
            "there is no C compiler",
            why="Triton needs one when it compiles kernels for the GPU, with the headers of Python.",
            fix="sudo apt-get install gcc python3-dev",
        )
