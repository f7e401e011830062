"""A GPU that PyTorch or Triton cannot use is refused with the reason, before a model is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from antiphon.config import EngineConfig
from antiphon.errors import ConfigError, NotEnoughMemory
from antiphon.runtime.accelerator import create_runner


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As on a machine with one GPU that can be used."""
    monkeypatch.setattr("torch.version.cuda", "12.8")
    monkeypatch.setattr("torch.cuda.init", lambda: None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.delenv("CC", raising=False)
    return monkeypatch


def require_cuda(name: str) -> None:
    from antiphon.ops.triton import device

    device.require_cuda(name)


def failing(error: Exception) -> Callable[..., None]:
    def fail(*arguments: object, **named: object) -> None:
        raise error

    return fail


def test_a_pytorch_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.version.cuda", None)
    with pytest.raises(ConfigError, match="was built without CUDA"):
        create_runner(EngineConfig("m.gguf", device="cuda:0"), None, lambda fraction, phase: None)


def test_a_driver_that_is_too_old_is_named(cuda: pytest.MonkeyPatch) -> None:
    cuda.setattr("torch.cuda.init", failing(RuntimeError("The NVIDIA driver is too old (found version 11040).\nMore")))
    with pytest.raises(
        ConfigError, match=r"cannot use the GPU: The NVIDIA driver is too old \(found version 11040\)\.$"
    ):
        require_cuda("cuda:0")


def test_a_gpu_that_pytorch_does_not_see_is_refused(cuda: pytest.MonkeyPatch) -> None:
    require_cuda("cuda:0")
    with pytest.raises(ConfigError, match="PyTorch sees 1 GPUs"):
        require_cuda("cuda:1")


def test_a_missing_compiler_is_named(cuda: pytest.MonkeyPatch) -> None:
    cuda.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="Triton needs a C compiler; install gcc"):
        require_cuda("cuda:0")
    cuda.setenv("CC", "tcc")
    require_cuda("cuda:0")


def test_too_little_memory_is_a_memory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from antiphon.ops.triton.device import Device

    monkeypatch.setattr(torch, "zeros", failing(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(MemoryError, match="no 1,000 values of float32"):
        Device("interpreter").zeros((10, 100), "float32")
    from tiny_models import gpu_runner, tiny_model

    with pytest.raises(NotEnoughMemory):
        gpu_runner(tiny_model())
