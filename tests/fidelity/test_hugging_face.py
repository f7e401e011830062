"""Tiny seeded Llama and Qwen2 folders: our logits against those of `transformers` on the very same folder."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from tiny_folders import CLASSES, write_random_folder

from antiphon.config import EngineConfig
from antiphon.request import SamplingParams
from antiphon.runtime.cpu import create_runner
from antiphon.step import SampleSpec, ScheduledSequence, StepPlan

LENGTH = 96
_GREEDY = SampleSpec(SamplingParams(temperature=0.0), choice_index=0, position=0)


@pytest.mark.parametrize("architecture", CLASSES)
def test_the_same_model_as_transformers_loads(tmp_path, architecture):
    """Rotation, grouped heads, biases, norms and the head: any of them wrong would be far outside."""
    folder = write_random_folder(tmp_path / "tiny", architecture, type="F32")
    judge = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.randint(judge.config.vocab_size, (LENGTH,), generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        truth = judge(tokens[None]).logits[0].log_softmax(-1)
    config = EngineConfig(model=str(folder), kv_cache_type="f16", kv_cache_tokens=LENGTH)
    runner = create_runner(config)
    divergences = []
    for at in range(LENGTH):
        blocks = list(range(-(-LENGTH // runner.block_size)))
        runner.execute(StepPlan([ScheduledSequence(0, [int(tokens[at])], at, blocks, _GREEDY)]))
        ours = torch.from_numpy(runner.logits()[0]).log_softmax(-1)
        divergences.append(float((truth[at].exp() * (truth[at] - ours)).sum()))
    assert max(divergences) < 0.01
    # The head is not flat: knowing nothing would cost far more.
    assert float((truth.exp() * truth).sum(-1).mean()) > -0.9 * torch.log(torch.tensor(judge.config.vocab_size))
