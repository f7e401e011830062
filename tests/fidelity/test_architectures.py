"""Tiny seeded models in both formats: our logits and greedy tokens against those of `transformers` on the folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tiny_folders import CLASSES, write_random_folder, write_random_gguf

from antiphon.config import EngineConfig
from antiphon.loading.assembly import planned_for_this_machine
from antiphon.request import SamplingParams
from antiphon.runtime.cpu import create_runner
from antiphon.step import SampleSpec, ScheduledSequence, StepPlan

if TYPE_CHECKING:
    import torch

LENGTH = 96
GREEDY_TOKENS = 30
_GREEDY = SampleSpec(SamplingParams(temperature=0.0), choice_index=0, position=0)

LINEAR = {"rope_type": "linear", "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}
DYNAMIC = {"rope_type": "dynamic", "factor": 8.0}  # of a trained context that is longer than the texts here

FOLDERS: dict[str, dict[str, Any]] = {
    **{name: {"architecture": name} for name in CLASSES},
    "mistral": {"architecture": "llama", "config_class": "MistralForCausalLM", "sliding_window": 512},
    "qwen3, wide heads": {"architecture": "qwen3", "head_dim": 64, "num_attention_heads": 4},
    "qwen3, yarn": {"architecture": "qwen3", "rope_scaling": YARN},
    **{
        f"{architecture}, {scaling['rope_type']}": {"architecture": architecture, "rope_scaling": scaling}
        for architecture in ("llama", "qwen2")
        for scaling in (LINEAR, LLAMA3, YARN, DYNAMIC)
    },
}
# Its angles follow the longest sequence that may be; the judge's the one at hand, which is as long here.
STRETCHED: dict[str, dict[str, Any]] = {
    f"{architecture}, dynamic, beyond the trained context": {
        "architecture": architecture,
        "rope_scaling": DYNAMIC,
        "max_position_embeddings": trained,
    }
    for architecture, trained in (("llama", 32), ("qwen2", 64), ("qwen3", 16))
}


def llama3_divisors(head_dim: int = 32, theta: float = 10_000.0) -> np.ndarray:
    """What the converters of other projects write for LLAMA3."""
    wavelengths = 2 * np.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((64 / wavelengths - 1.0) / (4.0 - 1.0), 0, 1)
    return (1 / ((1 - smooth) / 8.0 + smooth)).astype(np.float32)


GGUF_FIELDS: dict[str, dict[str, Any]] = {
    "linear": {"fields": {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}},
    "llama3": {"tensors": [("rope_freqs.weight", (16,), 0, llama3_divisors().tobytes())]},
    "yarn": {
        "fields": {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 8.0,
            "rope.scaling.original_context_length": 64,
        }
    },
    "dynamic": {},
}


@pytest.mark.parametrize("case", FOLDERS | STRETCHED)
def test_a_folder_is_the_same_model_as_transformers_loads(tmp_path: Path, case: str) -> None:
    """Rotation, its scaling, grouped heads, biases, norms and the head: any of them wrong would be far outside."""
    folder = write_random_folder(tmp_path / "tiny", type="F32", **(FOLDERS | STRETCHED)[case])
    check_against_transformers(folder, folder)


@pytest.mark.parametrize("case", FOLDERS)
def test_a_gguf_file_is_the_same_model(tmp_path: Path, case: str) -> None:
    settings = dict(FOLDERS[case])
    folder = write_random_folder(tmp_path / "tiny", type="F32", **settings)
    scaling = settings.pop("rope_scaling", {"rope_type": "dynamic"})
    settings.pop("config_class", None)
    path = write_random_gguf(tmp_path / "tiny.gguf", **settings, **GGUF_FIELDS[scaling["rope_type"]])
    check_against_transformers(path, folder)


def check_against_transformers(model: Path, folder: Path) -> None:
    import torch
    import transformers

    judge = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.randint(judge.config.vocab_size, (LENGTH,), generator=torch.Generator().manual_seed(7)).tolist()
    ours = continued(model, tokens).log_softmax(-1)
    with torch.inference_mode():
        truth = judge(torch.tensor([tokens[:-1]])).logits[0].log_softmax(-1)
    divergences = (truth.exp() * (truth - ours)).sum(-1)
    assert float(divergences.max()) < 0.01  # the weights are rounded to 8 bits
    # The head is not flat: knowing nothing would cost far more.
    assert float((truth.exp() * truth).sum(-1).mean()) > -0.9 * np.log(judge.config.vocab_size)
    for row, token in zip(truth[LENGTH - 1 :], tokens[LENGTH:], strict=True):
        assert row[token] >= row.max() - 0.1  # the likeliest, or as good as that


def continued(model: Path, tokens: list[int]) -> torch.Tensor:
    """Our logits at every position; `tokens` grows by what they choose, greedily."""
    import torch

    length = LENGTH + GREEDY_TOKENS
    config = EngineConfig(model=str(model), kv_cache_type="f16", kv_cache_tokens=2 * LENGTH, context_length=length)
    runner = create_runner(planned_for_this_machine(config))
    blocks = list(range(-(-2 * LENGTH // runner.block_size)))
    rows = []
    for at in range(length):
        result = runner.execute(StepPlan([ScheduledSequence(0, [tokens[at]], at, blocks, (_GREEDY,))]))
        rows.append(torch.from_numpy(runner.logits()[0].copy()))
        if at >= LENGTH - 1:
            tokens.append(result.sampled[0].token_id)
    return torch.stack(rows)
