"""`antiphon doctor` on GPUs, as a made-up nvidia-smi lists them."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from antiphon.doctor import gpu
from antiphon.doctor.findings import Finding, Level
from antiphon.machine.gpu import Gpu

GIB = 1 << 30
A40 = Gpu("NVIDIA A40", (8, 6), 45 * GIB, 44 * GIB, "580.65")
T4 = Gpu("Tesla T4", (7, 5), 15 * GIB, 14 * GIB, "580.65")


def findings(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu, missing: str = "", compiler: bool = True) -> list[Finding]:
    monkeypatch.setattr(gpu, "see_gpus", lambda: list(gpus))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing.split() else object())
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if compiler else None)
    return list(gpu.gpus())


def test_without_a_gpu_nothing_is_wrong_and_nothing_is_missing(monkeypatch: pytest.MonkeyPatch):
    (found,) = findings(monkeypatch, missing="torch triton pynvml", compiler=False)
    assert (found.level, found.what) == (Level.OK, "no NVIDIA GPU, or no driver for it (nvidia-smi lists none)")


def test_each_gpu_is_listed_and_one_that_is_too_old_is_a_note(monkeypatch: pytest.MonkeyPatch):
    first, second = findings(monkeypatch, A40, T4)
    assert first.level is Level.OK
    assert first.what == (
        "cuda:0: NVIDIA A40, compute capability 8.6, driver 580.65; 44.0 GiB of 45.0 GiB memory are free"
    )
    assert (second.level, second.what.split(",")[0]) == (Level.NOTE, "cuda:1: Tesla T4")
    assert "8.0 or later" in second.why


def test_what_a_gpu_needs_is_missed_only_where_there_is_one_that_can_be_used(monkeypatch: pytest.MonkeyPatch):
    _, packages, compiler = findings(monkeypatch, A40, missing="torch pynvml", compiler=False)
    assert (packages.level, packages.what) == (Level.NOTE, "not installed: PyTorch, nvidia-ml-py")
    assert packages.fix == "pip install 'antiphon[gpu]'"
    assert (compiler.level, compiler.what) == (Level.WARNING, "there is no C compiler")
    assert len(findings(monkeypatch, T4, missing="torch", compiler=False)) == 1
