"""Packed weights are the checkpoint's own, bit for bit: a one-hot row times the matrix shows each of its columns."""

import numpy as np
import pytest
from op_programs import OpBench, integer_rows, normed, one_token_each, ones
from tiny_models import TYPES, tensor

from antiphon.checkpoint import Tensor
from antiphon.ops.native import NativeMatrix, stored_matrix
from antiphon.ops.reference import dequantize

EXACT = [type for type in TYPES if type.startswith("Q")]
MIXES = [
    ("Q4_0", "Q8_0"),
    ("Q4_1", "Q8_0"),
    ("Q4_1", "Q4_0"),
    ("Q8_0", "Q4_1", "Q4_0"),
    ("F16", "Q4_0"),
    ("Q4_1", "BF16"),
]


def head_of(parts: list[Tensor]):
    """The parts packed as one matrix, after a norm: as a model's head."""

    def model(ops, x):
        packed = NativeMatrix([ops.device.pack([stored_matrix(part) for part in parts])], [])
        return ops.logits(ops.rms_norm(ops.sampled_rows(x), ops.vector(ones(parts[0].shape[1]))), packed)

    return model


def parts_of(types: tuple[str, ...], rows: tuple[int, ...], columns: int, seed: int = 5) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    sizes = (0.1, 3.0, 20.0)  # parts differ in magnitude
    return [
        tensor(f"part {i}", (rng.standard_normal((count, columns)) * sizes[i]).astype(np.float32), type)
        for i, (type, count) in enumerate(zip(types, rows, strict=True))
    ]


def seen_weights(parts: list[Tensor], instruction_set: str) -> np.ndarray:
    """The matrix as the kernels multiply it, [rows, columns]."""
    rows, columns = sum(part.shape[0] for part in parts), parts[0].shape[1]
    bench = OpBench(127.0 * np.eye(columns, dtype=np.float32), rows)
    return bench.native(head_of(parts), one_token_each(columns), instruction_set).T / np.sqrt(columns)


@pytest.mark.parametrize("type", EXACT)
@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (65, 64), (107, 96), (330, 160)])
def test_quantized_weights_are_kept_exactly(instruction_set: str, type: str, rows: int, columns: int) -> None:
    parts = parts_of((type,), (max(rows, columns + 1),), columns)
    weights = dequantize(parts[0])
    # The activation's scale and the products are float32: a few roundings. One code off would be a hundredth.
    assert np.allclose(seen_weights(parts, instruction_set), weights, rtol=2e-6, atol=2e-6 * np.abs(weights).max())


@pytest.mark.parametrize("types", MIXES)
def test_parts_of_different_types_share_a_form_exactly(instruction_set: str, types: tuple[str, ...]) -> None:
    parts = parts_of(types, (33, 70, 40)[: len(types)], 96)
    seen = seen_weights(parts, instruction_set)
    row = 0
    for part in parts:
        weights, own = dequantize(part), seen[row : row + part.shape[0]]
        row += part.shape[0]
        # A minimum of -128 scales cancels against codes about 128, so rounding is relative to that.
        group_largest = np.abs(weights.reshape(len(weights), -1, 32)).max(axis=2, keepdims=True)
        rounding = 4e-6 if part.type.startswith("Q") else 0.51 / 127
        error = np.abs(own - weights).reshape(len(weights), -1, 32)
        assert (error <= rounding * group_largest + 1e-7).all(), part.type


@pytest.mark.parametrize("type", ["F32", "F16", "BF16"])
def test_float_weights_round_to_the_nearest_of_8_bits(instruction_set: str, type: str) -> None:
    parts = parts_of((type,), (140,), 96)
    weights = dequantize(parts[0]).reshape(140, -1, 32)
    error = np.abs(seen_weights(parts, instruction_set).reshape(weights.shape) - weights)
    # Half a step; the scale, rounded up to half precision, is up to 2^-10 wider than the largest weight's 127th.
    assert (error <= 0.5 / 127 * (1 + 2**-9) * np.abs(weights).max(axis=2, keepdims=True)).all()


@pytest.mark.parametrize("value", [0.0, 1e-9, 6e-8, 3e-5, 60_000.0, 8_000_000.0])
def test_weights_of_extreme_size_survive(instruction_set: str, value: float) -> None:
    part = tensor("w", np.full((40, 32), value, np.float32), "F32")
    error = np.abs(seen_weights([part], instruction_set) - value)
    assert (error <= (value / 127 + 6e-8) / 2 * (1 + 2**-9)).all()  # half a step; 6e-8 is the smallest there is


@pytest.mark.parametrize("type", EXACT)
@pytest.mark.parametrize("count", [*range(1, 9), 31, 64, 65, 130])
def test_products_of_whole_numbers_are_exact(instruction_set: str, type: str, count: int) -> None:
    """Any number of rows; activations that int8 holds exactly. What remains is float32's rounding of the sums."""
    rng = np.random.default_rng(count)
    parts = parts_of((type,), (140,), 160)
    inputs = integer_rows(rng, count, 160)
    product = OpBench(inputs, 140).native(head_of(parts), one_token_each(count), instruction_set)
    weights = dequantize(parts[0]).astype(np.float64)
    magnitude = np.abs(normed(inputs)) @ np.abs(weights).T
    assert (np.abs(product - normed(inputs) @ weights.T) <= 2e-6 * magnitude).all()
