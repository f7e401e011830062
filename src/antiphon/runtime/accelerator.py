"""Starts the GPU runner, or says why it cannot. Imports torch and Triton only then."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from antiphon.config import EngineConfig
from antiphon.errors import ConfigError
from antiphon.step import LoadReport

if TYPE_CHECKING:
    from antiphon.runtime.gpu import GpuRunner


def create_runner(config: EngineConfig, progress: memoryview | None, report: LoadReport) -> GpuRunner:
    """Load `config.model` on `config.device`, "cuda:N" or "interpreter"; otherwise as `runtime.cpu.create_runner`.

    Raises ConfigError where packages are missing or the device cannot be used, NotEnoughMemory where it is too small.
    """
    # CUDA reads this once. It numbers GPUs by speed otherwise, and the front by their PCI addresses (`machine.gpu`).
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    try:
        if config.device == "interpreter":
            from antiphon.ops.triton.interpreter import use_interpreter

            use_interpreter()
        from antiphon.runtime.gpu import create_runner as create
    except ImportError as error:
        raise ConfigError(
            f"--device {config.device} needs PyTorch and Triton ({error}): pip install 'antiphon[gpu]'"
        ) from None
    return create(config, progress, report)
