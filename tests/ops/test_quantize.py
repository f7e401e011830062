"""Float weights into 4 and 8 bits: against plain rounding, on the formats' own grids, and inside a model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from tiny_models import cpu_runner, encode, scheduled, stored, tensor, tiny_model

from antiphon import _native
from antiphon.errors import CheckpointError
from antiphon.ops.native import quantize, stored_matrix
from antiphon.ops.reference import dequantize
from antiphon.quantization import as_quantized
from antiphon.step import StepPlan

RNG = np.random.default_rng(3)
DISTRIBUTIONS = {
    "normal": RNG.standard_normal((48, 256)),
    "heavy tails": RNG.standard_t(3, (48, 256)),
    "one sign": RNG.gamma(2.0, 1.0, (48, 256)),
    "outlying columns": RNG.standard_normal((48, 256)) * np.where(np.arange(256) % 37 == 0, 12, 1),
}


def device(instruction_set: str = "auto", threads: int = 2) -> _native.Device:
    return _native.Device(instruction_set, threads)


def rounded(values: np.ndarray, type: str, importance: np.ndarray | None = None) -> np.ndarray:
    """The values as they come back from blocks of `type`."""
    weights = [] if importance is None else importance.tolist()
    blocks, _, _ = device().quantize(stored_matrix(tensor("w", values)), type, weights)
    return dequantize(stored("w", values.shape, type, blocks.tobytes()))


def plainly_rounded(values: np.ndarray, type: str) -> np.ndarray:
    return dequantize(stored("w", values.shape, type, encode(values, type)))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize(("type", "gain"), [("Q4_0", 0.95), ("Q4_1", 0.9)])
def test_4_bits_lose_less_than_by_plain_rounding(name: str, type: str, gain: float) -> None:
    values = DISTRIBUTIONS[name].astype(np.float32)
    ours, plain = (((made - values) ** 2).sum() for made in (rounded(values, type), plainly_rounded(values, type)))
    assert ours < gain * plain


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_8_bits_are_off_by_half_a_step_at_most(name: str) -> None:
    values = DISTRIBUTIONS[name].astype(np.float32).reshape(-1, 32)
    step = np.abs(values).max(axis=1, keepdims=True) / 127
    assert (np.abs(rounded(values, "Q8_0") - values) <= step * 0.5 * (1 + 2**-9)).all()


@pytest.mark.parametrize("type", ["Q4_0", "Q4_1", "Q8_0"])
def test_values_that_a_type_can_hold_come_back_unchanged(type: str) -> None:
    codes = RNG.integers(-127 if type == "Q8_0" else -8, 128 if type == "Q8_0" else 8, (40, 64)).astype(np.float32)
    codes[:, ::32] = -127 if type == "Q8_0" else -8  # each group uses its range
    codes[:, 1::32] = 127 if type == "Q8_0" else 7
    values = codes * np.float32(2.0**-7)
    assert np.array_equal(rounded(values, type), values)


def test_columns_that_matter_are_kept_better() -> None:
    values = DISTRIBUTIONS["normal"].astype(np.float32)
    importance = np.where(np.arange(256) % 8 == 0, 100.0, 1.0)
    errors = [(rounded(values, "Q4_1", weights) - values) ** 2 for weights in (None, importance)]
    even, weighted = ((error * importance).sum() for error in errors)
    assert weighted < 0.8 * even
    assert errors[1][:, ::8].sum() < 0.6 * errors[0][:, ::8].sum()


def test_the_error_that_is_told_is_the_error_that_is_made() -> None:
    values = DISTRIBUTIONS["heavy tails"].astype(np.float32)
    importance = RNG.uniform(0.1, 5.0, 256)
    for type in ("Q4_0", "Q4_1", "Q8_0"):
        blocks, error, norm = device().quantize(stored_matrix(tensor("w", values)), type, importance.tolist())
        made = dequantize(stored("w", values.shape, type, blocks.tobytes()))
        weights = importance / importance.mean()
        assert error == pytest.approx((weights * (made - values) ** 2).sum(), rel=1e-4)
        assert norm == pytest.approx((weights * values**2).sum(), rel=1e-4)


def test_the_same_bits_on_every_instruction_set_and_any_number_of_threads() -> None:
    values = DISTRIBUTIONS["outlying columns"].astype(np.float32)
    source = stored_matrix(tensor("w", values))
    for type in ("Q4_0", "Q4_1", "Q8_0"):
        made = {
            device(name, threads).quantize(source, type)[0].tobytes()
            for name in _native.instruction_sets()
            for threads in (1, 3)
        }
        assert len(made) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_what_cannot_be_stored_is_refused_by_the_tensors_name(bad: float) -> None:
    values = np.ones((32, 64), np.float32)
    values[17, 40] = bad
    with pytest.raises(CheckpointError, match="tensor blk: holds a weight that is not a finite number"):
        quantize(device(), tensor("blk", values), "Q4_1")


@pytest.mark.parametrize("source", ["F32", "BF16"])
def test_a_model_in_4_bits_is_the_model_stored_so(instruction_set: str, source: str) -> None:
    """Quantized while it is loaded, and quantized before: the same bits."""
    model = tiny_model(architecture="llama", format="safetensors", type=source)
    lazily = as_quantized(model, "w4", partial(quantize, device(instruction_set)))
    before = {
        name: stored(name, kept.shape, kept.type, bytes(kept.read())) if kept.type == "Q4_1" else kept
        for name, kept in lazily.tensors.items()
    }
    runners = [cpu_runner(found, instruction_set) for found in (lazily, replace(model, tensors=before))]
    assert runners[0].describe()["weight_format"] == "W4+W8"
    for runner in runners:
        runner.execute(StepPlan([scheduled(list(range(5, 45)), [0, 1])]))
    assert np.array_equal(runners[0].logits(), runners[1].logits())
