"""Quantized folders through the engine: the same logits as float32 arithmetic on what their codes stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from quantized_folders import SCHEMES, Scheme, write_quantized_folder
from tiny_folders import CLASSES
from tiny_models import cpu_runner, scheduled

from antiphon.formats import open_checkpoint
from antiphon.runtime.reference import ReferenceRunner
from antiphon.step import Runner, StepPlan

PROMPT = np.random.default_rng(3).integers(0, 1000, 70).tolist()


def logits_of(runner: Runner) -> np.ndarray:
    runner.execute(StepPlan([scheduled(PROMPT, [5, 2, 9])]))
    return runner.logits()[0].copy()


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_folder_computes_what_its_codes_stand_for(tmp_path: Path, scheme: Scheme) -> None:
    truth = logits_of(ReferenceRunner(write_quantized_folder(tmp_path / "m", scheme)))
    checkpoint = open_checkpoint(tmp_path / "m")
    exact = logits_of(ReferenceRunner(checkpoint))
    seen = logits_of(cpu_runner(checkpoint, kv="f16", activations="int16"))
    kinds = {tensor.type for tensor in checkpoint.tensors.values() if tensor.source}
    assert np.abs(exact - truth).max() <= (0.01 if kinds & {"Q4_ZP"} or scheme.scales == "F32" else 1e-5) * truth.std()
    # The head is float32 in the file, and rounded to 8 bits; so is what has no type of ours.
    assert np.abs(seen - truth).max() <= (0.08 if "F32" in kinds else 0.03) * truth.std()


@pytest.mark.parametrize("architecture", CLASSES)
@pytest.mark.parametrize("method", ["awq", "gptq", "pack", "int"])
def test_every_architecture(tmp_path: Path, architecture: str, method: str) -> None:
    scheme = Scheme(method, bits=8, group_size=-1, symmetric=True) if method == "int" else Scheme(method)
    truth = logits_of(ReferenceRunner(write_quantized_folder(tmp_path / "m", scheme, architecture)))
    seen = logits_of(cpu_runner(open_checkpoint(tmp_path / "m"), kv="f16", activations="int16"))
    assert np.abs(seen - truth).max() <= 0.03 * truth.std()
