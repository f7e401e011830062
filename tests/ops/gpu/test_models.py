"""Whole models on the GPU's kernels, in the interpreter, give the CPU runner's logits and tokens, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from biased_models import biased_model
from tiny_models import cpu_runner, gpu_runner, scheduled, tiny_model

from antiphon.request import SamplingParams
from antiphon.step import SampleSpec, StepPlan

PROMPT = np.random.default_rng(1).integers(0, 330, 100).tolist()
DRAWN = SampleSpec(SamplingParams(temperature=0.8, top_p=0.9, seed=3, num_logprobs=2), 0, 0)


def plans() -> list[StepPlan]:
    """A long prompt in chunks, beside sequences that come and go."""
    return [
        StepPlan([scheduled(PROMPT[:40], [3, 1, 7, 9], sample=None)]),
        StepPlan(
            [
                scheduled(PROMPT[40:45], [3, 1, 7, 9], start=40, sample=DRAWN),
                scheduled(PROMPT[:7], [5], id=1),
                scheduled(PROMPT[9:10], [6], id=2),
            ]
        ),
        StepPlan([scheduled(PROMPT[45:46], [3, 1, 7, 9], start=45), scheduled(PROMPT[10:40], [6, 2], start=1, id=2)]),
    ]


@pytest.mark.parametrize(
    ("settings", "activations"),
    [
        ({"architecture": "llama", "type": "Q8_0", "tie_word_embeddings": True}, "int16"),
        ({"architecture": "qwen2", "type": {"": "Q4_0", "v": "Q8_0", "v_bias": "F32"}}, "int8"),
        ({"architecture": "qwen3", "type": "Q4_1", "head_dim": 96}, "int8"),
    ],
    ids=["llama", "qwen2", "qwen3"],
)
def test_a_model_gives_the_cpu_s_logits_and_tokens(settings: dict[str, Any], activations: str) -> None:
    checkpoint = tiny_model(**settings)
    cpu = cpu_runner(checkpoint, activations=activations, max_sequences=8)
    gpu = gpu_runner(checkpoint, activations=activations, max_sequences=8)
    for plan in plans():
        assert gpu.execute(plan) == cpu.execute(plan)
        assert np.array_equal(gpu.logits(), cpu.logits())


def test_large_key_biases_are_added_as_on_the_cpu() -> None:
    checkpoint = biased_model(40.0)
    cpu, gpu = cpu_runner(checkpoint, max_sequences=8), gpu_runner(checkpoint, max_sequences=8)
    plan = StepPlan([scheduled(PROMPT[:40], [3, 1])])  # the second block begins at an angle
    assert gpu.execute(plan) == cpu.execute(plan)
    assert np.array_equal(gpu.logits(), cpu.logits())


def test_a_request_alone_gets_the_bits_that_it_gets_in_a_batch() -> None:
    checkpoint = tiny_model(type="Q4_0", num_hidden_layers=1)
    alone, batched = (gpu_runner(checkpoint, max_sequences=8) for _ in range(2))
    batched.execute(
        StepPlan([scheduled(PROMPT[20:37], [4], id=1), scheduled(PROMPT[:7], [5]), scheduled([3], [6], id=2)])
    )
    alone.execute(StepPlan([scheduled(PROMPT[:7], [0])]))
    assert np.array_equal(alone.logits()[0], batched.logits()[1])


def test_an_answer_begun_on_the_gpu_continues_on_the_cpu_with_the_same_tokens() -> None:
    """As after the death of an engine: the other computes all known tokens again, in one step."""
    checkpoint = tiny_model(num_hidden_layers=1)
    gpu, cpu = gpu_runner(checkpoint, max_sequences=2), cpu_runner(checkpoint, max_sequences=2)
    sampling = SamplingParams(temperature=1.0, seed=8)
    known = PROMPT[:12]
    for position in range(3):
        start = 0 if position == 0 else len(known) - 1
        spec = SampleSpec(sampling, 0, position)
        (token,) = gpu.execute(StepPlan([scheduled(known[start:], [0], start=start, sample=spec)])).sampled
        (again,) = cpu.execute(StepPlan([scheduled(known, [1], id=position, sample=spec)])).sampled
        assert again.token_id == token.token_id
        known.append(token.token_id)


def test_a_step_that_does_not_fit_is_refused() -> None:
    runner = gpu_runner(tiny_model(), num_blocks=2, max_tokens=8, max_sequences=1)
    for sequence in (
        scheduled([1] * 9, [0]),
        scheduled([1], [2]),
        scheduled([330], [0]),
        scheduled([1], [0], start=32),
        scheduled([1], [0, 1], start=64),
    ):
        with pytest.raises(ValueError, match=r"fit|vocabulary|larger"):
            runner.execute(StepPlan([sequence]))


def test_warming_up_changes_no_answer_and_captures_the_graphs_of_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tiny_model(num_hidden_layers=1)
    cold, warm = (gpu_runner(checkpoint, num_blocks=2, max_tokens=8, max_sequences=2) for _ in range(2))
    warm.warm_up()
    plan = StepPlan([scheduled(PROMPT[:7], [0])])
    assert warm.execute(plan) == cold.execute(plan)
    assert np.array_equal(warm.logits(), cold.logits())
    monkeypatch.setattr(warm._device, "launch", lambda *arguments, **constants: pytest.fail("a kernel was launched"))
    for sequences in ([scheduled([3], [0], start=7)], [scheduled([3], [0], start=7), scheduled([4], [1], id=1)]):
        assert warm.execute(StepPlan(sequences)) == cold.execute(StepPlan(sequences))
