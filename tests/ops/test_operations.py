"""Each operation alone against the reference, on every instruction set.

Tolerances follow from what is rounded: int8 activations err by half of 1/127 of their group's largest value, 16-bit
ones by 1/254 of that, and everything else is float32.
"""

from dataclasses import replace

import numpy as np
import pytest
from op_programs import OpBench, identity, integer_rows, one_token_each, ones, show
from tiny_models import TYPES, tensor

from antiphon.ops.reference import dequantize

COUNTS = [1, 2, 5, 6, 7, 13, 64, 65, 130]


def random_matrix(name: str, rows: int, columns: int, type: str = "Q8_0"):
    rng = np.random.default_rng(rows * 1000 + columns)
    return tensor(name, (rng.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32), type)


def random_rows(count: int, width: int) -> np.ndarray:
    """Rows of very different sizes, one of them zero."""
    rng = np.random.default_rng(count * 1000 + width)
    rows = rng.standard_normal((count, width)) * 10.0 ** rng.uniform(-3, 3, (count, 1))
    rows[count // 2] *= count == 1
    return rows.astype(np.float32)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("width", [32, 96, 160])
def test_rms_norm(instruction_set: str, count: int, width: int) -> None:
    """Quantized to 16 bits and seen through the identity."""
    weight = tensor("w", np.random.default_rng(7).uniform(-2, 2, width).astype(np.float32))
    bench = OpBench(random_rows(count, width), max(150, width))

    def model(ops, x):
        h = ops.rms_norm(ops.sampled_rows(x), ops.vector(weight))
        return ops.logits(h, ops.matrix([identity(bench.vocabulary, width)]))

    plan = one_token_each(count)
    expected = bench.reference(model, plan)
    seen = bench.native(model, plan, instruction_set)
    groups = np.abs(expected[:, :width]).reshape(count, -1, 32).max(axis=2)
    error = np.abs(seen - expected)[:, :width].reshape(count, -1, 32).max(axis=2)
    assert (error <= groups * (0.5 / 127 / 254 * 1.01 + 1e-6)).all()


def test_columns_in_another_order(instruction_set: str) -> None:
    """Twice, each matrix in an order of its own: the same product, its input put in that order behind the norm."""
    rng = np.random.default_rng(3)
    weight = tensor("w", rng.uniform(0.5, 2, 96).astype(np.float32))
    bench = OpBench(random_rows(40, 96), 150)

    def shuffled(part):
        order = rng.permutation(96)
        values = dequantize(part)[:, order]
        return replace(tensor(part.name, values, "F32"), column_order=tuple(order.tolist()))

    middle, head = shuffled(random_matrix("middle", 96, 96)), shuffled(random_matrix("head", 150, 96))

    def model(ops, x):
        x = ops.add(x, ops.linear(ops.rms_norm(x, ops.vector(weight)), ops.matrix([middle])))
        return ops.logits(ops.rms_norm(ops.sampled_rows(x), ops.vector(weight)), ops.matrix([head]))

    plan = one_token_each(40)
    expected = bench.reference(model, plan)
    seen = bench.native(model, plan, instruction_set, wide=True)
    assert np.abs(seen - expected).max() <= 0.04 * expected.std()  # the matrices are rounded to 8 bits


@pytest.mark.parametrize(("wide", "tolerance"), [(False, 1.2 / 127), (True, 1e-4)])
@pytest.mark.parametrize("count", [1, 6, 33, 65, 130])
def test_residual_stream(instruction_set: str, count: int, wide: bool, tolerance: float) -> None:
    """norm → linear with a bias, added to what was there: the accumulating form."""
    weight = tensor("w", np.random.default_rng(7).uniform(0.5, 2, 96).astype(np.float32))
    bench = OpBench(random_rows(count, 96), 150)
    bias = [tensor("b", np.linspace(-1, 1, 96).astype(np.float32))]

    def model(ops, x):
        y = ops.linear(ops.rms_norm(x, ops.vector(weight)), ops.matrix([random_matrix("m", 96, 96)], bias))
        return show(ops, ops.add(x, y), 96, 150)

    plan = one_token_each(count)
    expected = bench.reference(model, plan)
    seen = bench.native(model, plan, instruction_set, wide=wide)
    assert np.abs(seen - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("types", [("Q8_0", "Q8_0"), ("Q4_0", "Q8_0"), ("Q4_1", "Q8_0"), ("Q4_1", "Q4_0")])
@pytest.mark.parametrize("count", [1, 3, 70])
def test_linear_with_bias_on_whole_numbers(instruction_set: str, types: tuple[str, str], count: int) -> None:
    """Parts of mixed types and odd sizes, inputs that int8 holds exactly: only the last norm's 16 bits round."""
    parts = [
        random_matrix(f"part {i}", rows, 160, type) for i, (rows, type) in enumerate(zip((107, 53), types, strict=True))
    ]
    bias = [tensor("bias", np.linspace(-2, 2, 160).astype(np.float32))]
    bench = OpBench(integer_rows(np.random.default_rng(1), count, 160) / 100, 170)

    def model(ops, x):
        y = ops.linear(ops.rms_norm(x, ops.vector(ones(160))), ops.matrix(parts, bias))
        return show(ops, ops.add(x, y), 160, 170)

    plan = one_token_each(count)
    expected = bench.reference(model, plan)
    seen = bench.native(model, plan, instruction_set)
    assert np.abs(seen - expected).max() <= 2.5e-5 * np.abs(expected).max()


@pytest.mark.parametrize(("wide", "tolerance"), [(False, 2.5 / 127), (True, 2e-4)])
@pytest.mark.parametrize(
    "types", [("Q8_0", "Q8_0"), ("Q4_0", "Q4_0"), ("Q4_1", "Q4_0"), ("Q4_0", "Q8_0"), ("BF16", "Q4_1")]
)
@pytest.mark.parametrize("count", [1, 7, 65])
def test_silu_mul(instruction_set: str, count: int, types: tuple[str, str], wide: bool, tolerance: float) -> None:
    """Gate and up interleaved, with inputs from nearly zero to where the sigmoid saturates."""
    gate_up = [random_matrix(f"{i}", 128, 96, type) for i, type in enumerate(types)]
    weight = tensor("w", np.geomspace(0.1, 30, 96).astype(np.float32))
    bench = OpBench(random_rows(count, 96), 150)

    def model(ops, x):
        h = ops.linear(ops.rms_norm(x, ops.vector(weight)), ops.matrix(gate_up, interleave=True))
        y = ops.linear(ops.silu_mul(h), ops.matrix([random_matrix("down", 96, 128)]))
        return show(ops, ops.add(x, y), 96, 150)

    plan = one_token_each(count)
    expected = bench.reference(model, plan)
    seen = bench.native(model, plan, instruction_set, wide=wide)
    extra = 0.5 / 127 if "BF16" in types else 0.0
    assert np.abs(seen - expected).max() <= (tolerance + extra) * np.abs(expected).max()


@pytest.mark.parametrize("type", TYPES)
def test_embedding_rows_are_the_tables(instruction_set: str, type: str) -> None:
    table = random_matrix("table", 150, 96, type)

    def model(ops, x):
        return show(ops, x, 96, 150)

    plan = one_token_each(100)
    seen = OpBench(table, 150).native(model, plan, instruction_set)
    assert (seen == OpBench(dequantize(table), 150).native(model, plan, instruction_set)).all()
    expected = OpBench(table, 150).reference(model, plan)
    assert np.abs(seen - expected).max() <= 2.5e-5 * np.abs(expected).max()


@pytest.mark.parametrize("size", [1e-42, 1e-37, 1e-25, 1e-3, 1e15])
def test_tiny_and_huge_inputs_stay_what_they_are(instruction_set: str, size: float) -> None:
    """No group's scale may overflow or invert to infinity; what a norm's weight makes tiny, int8 may make zero."""
    rows = (random_rows(5, 96) + 1).clip(-3, 3)
    weight = tensor("w", np.full(96, size, np.float32))
    bench = OpBench(rows, 150)

    def model(ops, x):
        return ops.logits(ops.rms_norm(ops.sampled_rows(x), ops.vector(weight)), ops.matrix([identity(150, 96)]))

    plan = one_token_each(5)
    expected = bench.reference(model, plan)
    seen = bench.native(model, plan, instruction_set)
    assert np.abs(seen - expected).max() <= max(1e-4 * np.abs(expected).max(), 1e-36)


def test_a_product_that_nothing_uses_is_caught() -> None:
    """It would not be recorded: the model would run without it."""
    bench = OpBench(random_rows(1, 96), 150)

    def model(ops, x):
        ops.linear(ops.rms_norm(x, ops.vector(ones(96))), ops.matrix([random_matrix("lost", 96, 96)]))
        return show(ops, x, 96, 150)

    with pytest.raises(AssertionError, match="never used"):
        bench.native(model, one_token_each(1))


def test_a_product_that_is_used_twice_is_caught() -> None:
    bench = OpBench(random_rows(1, 96), 150)

    def model(ops, x):
        y = ops.linear(ops.rms_norm(x, ops.vector(ones(96))), ops.matrix([random_matrix("m", 96, 96)]))
        return show(ops, ops.add(ops.add(x, y), y), 96, 150)

    with pytest.raises(AssertionError, match="used twice"):
        bench.native(model, one_token_each(1))
