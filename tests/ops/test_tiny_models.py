"""Whole tiny models: native against the reference, both against `transformers`, one order of rows against the other."""

import numpy as np
import pytest
from tiny_models import TYPES, cpu_runner, scheduled, tiny_model

from antiphon.checkpoint import Checkpoint
from antiphon.ops.reference import dequantize
from antiphon.runtime.reference import ReferenceRunner
from antiphon.step import Runner, StepPlan

PROMPT = np.random.default_rng(8).integers(0, 330, 90).tolist()
SHAPES = {
    "llama": {},
    "llama, tied, no groups": {"tie_word_embeddings": True, "num_attention_heads": 3, "num_key_value_heads": 3},
    "qwen2": {"architecture": "qwen2", "num_attention_heads": 2, "head_dim": 96, "num_key_value_heads": 1},
    "qwen2, tied": {"architecture": "qwen2", "tie_word_embeddings": True, "rope_theta": 1e6},
    "qwen3": {"architecture": "qwen3"},
    "qwen3, wide heads, tied": {
        "architecture": "qwen3",
        "head_dim": 64,
        "num_attention_heads": 4,
        "tie_word_embeddings": True,
    },
    "llama, linear scaling": {"rope_scaling": {"rope_type": "linear", "factor": 3.0}},
    "llama, llama3 scaling": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "qwen2, yarn": {
        "architecture": "qwen2",
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 48,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "attention_factor": 1.25,
            "truncate": True,
        },
    },
}


def logits_after(runner: Runner, prompt: list[int] = PROMPT) -> np.ndarray:
    runner.execute(StepPlan([scheduled(prompt, [5, 2, 9])]))
    return runner.logits()[0].copy()


def generated(runner: Runner, count: int) -> list[int]:
    """Greedy tokens after the prompt, one step each."""
    tokens = list(PROMPT[:40])
    start = 0
    while len(tokens) < 40 + count:
        result = runner.execute(StepPlan([scheduled(tokens[start:], [5, 2, 9], start=start)]))
        start = len(tokens)
        tokens.append(result.sampled[0].token_id)
    return tokens[40:]


@pytest.mark.parametrize("type", ["Q4_0", "Q4_1", "Q8_0"])
@pytest.mark.parametrize("shape", SHAPES)
def test_native_is_close_to_float32(instruction_set: str, shape: str, type: str) -> None:
    """The same quantized weights; K, V and activations in 16 bits, so only their last bits differ."""
    checkpoint = tiny_model(type=type, **SHAPES[shape])
    exact = logits_after(ReferenceRunner(checkpoint))
    seen = logits_after(cpu_runner(checkpoint, instruction_set, kv="f16", activations="int16"))
    assert np.abs(seen - exact).max() <= 0.01 * exact.std()


@pytest.mark.parametrize("type", TYPES)
def test_int8_is_close_enough(type: str) -> None:
    """Activations, K and V in 8 bits: about a percent of noise in every layer, and F16 and its like become W8."""
    checkpoint = tiny_model(type=type)
    exact = logits_after(ReferenceRunner(checkpoint))
    error = logits_after(cpu_runner(checkpoint)) - exact
    assert np.sqrt(np.mean(error**2)) <= 0.06 * exact.std()


@pytest.mark.parametrize("type", ["F16", "Q4_0", "Q8_0"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_both_orders_of_rows_are_the_same_model(architecture: str, type: str) -> None:
    """GGUF's llama keeps Q and K interleaved, Hugging Face in halves; the Qwens are in halves in both."""
    folder = tiny_model(architecture=architecture, type=type)
    gguf = tiny_model(architecture=architecture, type=type, format="gguf")
    assert (logits_after(ReferenceRunner(folder)) == logits_after(ReferenceRunner(gguf))).all()
    assert (logits_after(cpu_runner(folder)) == logits_after(cpu_runner(gguf))).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_computes_the_same(shape: str) -> None:
    """Logits of the reference, and thirty greedy tokens of it and of the native engine."""
    judge = _transformers_model(checkpoint := tiny_model(type="Q8_0", **SHAPES[shape]))
    reference = ReferenceRunner(checkpoint)
    theirs = judge(PROMPT)
    assert np.abs(logits_after(reference) - theirs).max() <= 1e-4 * np.abs(theirs).max()
    native = cpu_runner(checkpoint, kv="f16", activations="int16")
    for runner, slack in ((reference, 1e-4), (native, 0.02)):
        known = PROMPT[:40]
        for token_id in generated(runner, 30):
            row = judge(known)
            assert row[token_id] >= row.max() - slack  # the likeliest, or as good as that
            known = [*known, token_id]


def _transformers_model(checkpoint: Checkpoint):
    """The checkpoint in `transformers`, float32: prompt → logits after it."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    family = checkpoint.architecture.capitalize()
    config_class, model_class = (getattr(transformers, family + part) for part in ("Config", "ForCausalLM"))
    settings = {key: value for key, value in checkpoint.settings.items() if value is not None}
    model = model_class(config_class(**settings, attn_implementation="eager")).float().eval()
    weights = {name: torch.tensor(dequantize(tensor)) for name, tensor in checkpoint.tensors.items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert set(missing) <= ({"lm_head.weight"} if checkpoint.settings["tie_word_embeddings"] else set())
    model.tie_weights()

    def logits(prompt: list[int]) -> np.ndarray:
        with torch.no_grad():
            return model(torch.tensor([prompt])).logits[0, -1].numpy()

    return logits


def test_a_step_tells_where_its_time_went() -> None:
    machine = cpu_runner(tiny_model())
    logits_after(machine)
    assert set(machine.last_seconds()) == {"linear", "attention", "head", "sampling", "rest"}
    assert all(seconds > 0 for seconds in machine.last_seconds().values())
