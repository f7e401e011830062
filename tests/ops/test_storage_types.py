"""Every stored type is read as its inventors read it: the `gguf` package's own dequantization is the judge."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from op_programs import OpBench, one_token_each, ones
from tiny_models import stored, tensor

from antiphon import _native
from antiphon.checkpoint import TENSOR_TYPES, Tensor
from antiphon.ops.native import NativeMatrix, stored_matrix
from antiphon.ops.reference import dequantize

ROWS, COLUMNS = 512, 256
# Where a block keeps its half-precision numbers; random bytes there would be infinities now and then.
HALVES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
EXACT = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL")  # what packing loses nothing of
QUANTIZED = [name for name in TENSOR_TYPES if name not in ("F32", "F16", "BF16")]


def random_blocks(name: str) -> np.ndarray:
    """Random bytes with sane scales: uint8 [ROWS, bytes a row]."""
    size, block = TENSOR_TYPES[name]
    generator = np.random.default_rng(7)
    raw = generator.integers(0, 256, (ROWS * COLUMNS // block, size), dtype=np.uint8)
    for offset in HALVES.get(name, (0,)):
        scales = generator.uniform(0.001, 0.01, (len(raw), 1)).astype(np.float16)
        raw[:, offset : offset + 2] = scales.view(np.uint8)
    return raw.reshape(ROWS, -1)


def judged(name: str, raw: np.ndarray) -> np.ndarray:
    return gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[name])


@pytest.mark.parametrize("name", QUANTIZED)
def test_values_are_those_of_the_format(name):
    raw = random_blocks(name)
    values = np.empty((ROWS, COLUMNS), np.float32)
    _native.StoredMatrix(raw.tobytes(), name, ROWS, COLUMNS).dequantize(values)
    assert np.array_equal(values, judged(name, raw))
    assert np.array_equal(values, dequantize(stored(name, (ROWS, COLUMNS), name, raw.tobytes())))


def test_our_own_type_is_q4_1_with_codes_counted_from_the_middle():
    raw = random_blocks("Q4_1")
    values = np.empty((ROWS, COLUMNS), np.float32)
    _native.StoredMatrix(raw.tobytes(), "Q4_ZP", ROWS, COLUMNS).dequantize(values)
    scales = raw.reshape(-1, 20)[:, :2].copy().view(np.float16).astype(np.float32)
    counted = (judged("Q4_1", raw).reshape(-1, 32) - 8 * scales).reshape(ROWS, COLUMNS)
    assert np.allclose(values, counted, atol=1e-6)
    own = Tensor("w", (ROWS, COLUMNS), "Q4_ZP", lambda: memoryview(raw.tobytes()))
    assert np.array_equal(values, dequantize(own))
    assert np.allclose(as_kernels_see_it(own), values, atol=1e-4 * np.abs(values).max())


@pytest.mark.parametrize("other", ["Q4_0", "Q4_1", "Q8_0", "F16"])
def test_our_own_type_beside_others_in_one_matrix(other):
    rng = np.random.default_rng(3)
    mine = Tensor("mine", (ROWS, COLUMNS), "Q4_ZP", lambda: memoryview(random_blocks("Q4_1").tobytes()))
    theirs = tensor("theirs", rng.normal(0, 0.05, (ROWS, COLUMNS)).astype(np.float32), other)
    wanted = np.concatenate([dequantize(mine), dequantize(theirs)])
    assert np.abs(as_kernels_see_it(mine, theirs) - wanted).max() <= np.abs(wanted).max() / 200


@pytest.mark.parametrize("name", QUANTIZED)
def test_packing_adds_little_to_the_formats_own_error(name):
    raw = random_blocks(name)
    weights = judged(name, raw)
    error = np.abs(as_kernels_see_it(stored(name, (ROWS, COLUMNS), name, raw.tobytes())) - weights)
    largest = np.abs(weights).reshape(ROWS, -1, 32).max(axis=2).repeat(32, axis=1)  # of each group
    assert (error <= largest * (1e-4 if name in EXACT else 1 / 250)).all()  # activations have some 16 bits


def as_kernels_see_it(*parts: Tensor) -> np.ndarray:
    """The packed weights, [rows, COLUMNS]: products with the columns of the identity, which the norm scales by 16."""
    bench = OpBench(np.eye(COLUMNS, dtype=np.float32), ROWS * len(parts))

    def model(ops, x):
        together = NativeMatrix([ops.device.pack([stored_matrix(part) for part in parts])], [])
        return ops.logits(ops.rms_norm(ops.sampled_rows(x), ops.vector(ones(COLUMNS))), together)

    logits = bench.native(model, one_token_each(COLUMNS))
    return logits.T / np.float32(16)
