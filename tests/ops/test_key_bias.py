"""The part of K's bias that an int8 KV cache leaves out: which it is, and that scores have it all the same."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_programs import OpBench, identity, one_token_each
from tiny_models import TYPES, cpu_runner, scheduled, tensor, tiny_model

from antiphon import _native
from antiphon.checkpoint import Checkpoint
from antiphon.ops.key_bias import KEPT_ENERGY, bias_to_leave_out
from antiphon.ops.native import stored_matrix
from antiphon.ops.reference import dequantize
from antiphon.runtime.reference import ReferenceRunner
from antiphon.step import StepPlan

PROMPT = np.random.default_rng(8).integers(0, 330, 90).tolist()


@given(
    seed=st.integers(0, 1000), size=st.sampled_from([0.0, 0.1, 1.0, 30.0, 500.0]), product=st.sampled_from([0.0, 40.0])
)
def test_no_more_is_left_out_than_is_needed(seed: int, size: float, product: float) -> None:
    rng = np.random.default_rng(seed)
    bias = rng.standard_normal((3, 64)) * size * 10.0 ** rng.uniform(-2, 0, (3, 64))
    left_out = bias_to_leave_out(bias, np.full(3, product))
    assert ((left_out == bias) | (left_out == 0)).all()
    energies = (bias**2).reshape(3, 2, 32).sum(axis=1)
    is_left_out = (left_out != 0).reshape(3, 2, 32).any(axis=1)
    kept = np.where(is_left_out, 0, energies).sum(axis=1)
    allowed = KEPT_ENERGY * product + 1e-9 * energies.sum(axis=1)
    assert (kept <= allowed * (1 + 1e-9)).all()
    for head in np.flatnonzero(is_left_out.any(axis=1)):  # keeping the smallest of them too would be too much
        assert kept[head] + energies[head][is_left_out[head]].min() > allowed[head]


def test_a_small_bias_stays_in_the_cache() -> None:
    assert not bias_to_leave_out(np.full((2, 64), 0.5), np.full(2, 64.0)).any()


@pytest.mark.parametrize("type", [*TYPES, "Q5_1", "Q4_K"])
def test_the_energy_of_rows_is_that_of_their_weights(type: str) -> None:
    rng = np.random.default_rng(1)
    weights = tensor("weights", rng.standard_normal((70, 256)).astype(np.float32), type)
    factors = rng.uniform(0.5, 2, 256)
    packed = _native.Device("auto", 1).pack([stored_matrix(weights)])
    expected = ((dequantize(weights).astype(np.float64) * factors) ** 2).sum(axis=1)[33:70]
    assert np.allclose(packed.row_energies(33, 37, factors.tolist()), expected, rtol=0.02)
    for first, count, width in ((0, 71, 256), (-1, 2, 256), (70, 1, 256), (0, 1, 255)):
        with pytest.raises(ValueError, match=r"no such rows|one factor"):
            packed.row_energies(first, count, [1.0] * width)


def large_key_biases(checkpoint: Checkpoint, size: float = 80.0) -> Checkpoint:
    """The model with a large bias in two pairs of dimensions of every key head, the ones that turn most slowly."""
    rng, tensors = np.random.default_rng(4), dict(checkpoint.tensors)
    dim = checkpoint.settings["head_dim"]
    for name in [name for name in tensors if name.endswith("k_proj.bias")]:
        bias = dequantize(tensors[name]).reshape(-1, dim)
        for pair in (dim // 2 - 1, dim // 2 - 3):
            bias[:, [pair, pair + dim // 2]] += (rng.standard_normal((len(bias), 2)) * size).astype(np.float32)
        tensors[name] = tensor(name, bias.reshape(-1))
    return replace(checkpoint, tensors=tensors)


SHAPES = {
    "two KV heads": {},
    "heads of 96, linear": {
        "num_attention_heads": 2,
        "head_dim": 96,
        "num_key_value_heads": 1,
        "rope_scaling": {"rope_type": "linear", "factor": 3.0},
    },
    "yarn": {
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 48,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "attention_factor": 1.25,
            "truncate": True,
        }
    },
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("type", ["Q8_0", {"": "Q8_0", "q": "Q4_0"}])
def test_large_key_biases_stay_close_to_float32(instruction_set: str, shape: str, type: str | dict[str, str]) -> None:
    """Across three blocks, whose positions the bias' share of the scores depends on."""
    checkpoint = large_key_biases(tiny_model(architecture="qwen2", type=type, rope_theta=1e6, **SHAPES[shape]))
    plan = StepPlan([scheduled(PROMPT, [5, 2, 9])])
    reference, native = ReferenceRunner(checkpoint), cpu_runner(checkpoint, instruction_set, activations="int16")
    reference.execute(plan)
    native.execute(plan)
    expected = reference.logits()[0]
    assert np.abs(native.logits()[0] - expected).max() <= 0.1 * expected.std()


@pytest.mark.parametrize("activations", ["int8", "int16"])
def test_large_key_biases_give_the_same_bits_however_a_prompt_is_cut(instruction_set: str, activations: str) -> None:
    checkpoint = large_key_biases(tiny_model(architecture="qwen2", rope_theta=1e6))
    whole = cpu_runner(checkpoint, "scalar", activations=activations)
    whole.execute(StepPlan([scheduled(PROMPT, [5, 2, 9])]))
    cut = cpu_runner(checkpoint, instruction_set, activations=activations, threads=2)
    for start, end in ((0, 1), (1, 33), (33, 40), (40, 89), (89, 90)):
        cut.execute(StepPlan([scheduled(PROMPT[start:end], [5, 2, 9], start=start)]))
    assert (cut.logits() == whole.logits()).all()


def test_a_key_bias_that_does_not_fit_is_refused() -> None:
    for bias, norm, kv in (([1.0] * 31, [], "int8"), ([1.0] * 32, [1.0] * 32, "int8"), ([1.0] * 32, [], "f16")):

        def model(ops, x, bias=bias, norm=norm):
            qkv = ops._write("qkv", 96)
            ops._program.attention(qkv.buffer, 0, ops._write("o", 32, quantized=True).buffer, norm, norm, 1e-6, bias)
            return ops.logits(ops.rms_norm(x, [1.0] * 32), ops.matrix([identity(32, 32)]))

        with pytest.raises(ValueError, match="key bias"):
            OpBench(np.ones((1, 32), np.float32), 32).native(model, one_token_each(1), kv=kv)
