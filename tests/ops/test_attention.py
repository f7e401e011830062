"""Attention alone: paged, grouped, quantized, against float32; and the same bits however it is cut into steps."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from op_programs import OpBench, identity, show
from tiny_models import GREEDY, tensor

from antiphon.step import ScheduledSequence, StepPlan

LENGTHS = (1, 2, 31, 32, 33, 64, 95, 150)  # of the sequences, across up to five blocks
ROWS = sum(LENGTHS)
HEADS = [(2, 2, 32), (3, 1, 64), (6, 2, 96), (12, 2, 128), (6, 1, 32)]  # groups of 1, 3 and 6


class Attention:
    """One layer of attention over random Q, K and V, which rows of the table become by a norm and an identity."""

    def __init__(self, heads: tuple[int, int, int], *, spread: float = 2.0, normed: bool = False) -> None:
        num_heads, num_kv_heads, dim = heads
        self.width = (num_heads + 2 * num_kv_heads) * dim
        self.attended = num_heads * dim
        rng = np.random.default_rng(dim)
        rows = (1e-4 * rng.standard_normal((ROWS, self.width))).astype(np.float32)  # the residual stream's own share
        self.bench = OpBench(rows, max(ROWS, self.width), heads=heads, num_blocks=40)
        weight = np.ones(self.width, np.float32)
        weight[: self.attended] = spread  # from flat to peaked attention
        self.weight = tensor("weight", weight)
        self.bench.attention_factor = 1.2 if normed else 1.0
        self.qk_norm = [tensor(name, rng.uniform(-1.5, 1.5, dim).astype(np.float32)) for name in "qk" if normed]

    def model(self, ops, x):
        qkv = ops.linear(ops.rms_norm(x, ops.vector(self.weight)), ops.matrix([identity(self.width, self.width)]))
        norms = tuple(ops.vector(norm) for norm in self.qk_norm) or None
        out = ops.linear(ops.attention(qkv, 0, norms), ops.matrix([identity(self.width, self.attended)]))
        return show(ops, ops.add(x, out), self.width, self.bench.vocabulary)


@cache
def attention(heads: tuple[int, int, int], *, spread: float = 2.0, normed: bool = False) -> Attention:
    """The same layer for every instruction set and kind of cache."""
    return Attention(heads, spread=spread, normed=normed)


@cache
def reference(layer: Attention) -> np.ndarray:
    return layer.bench.reference(layer.model, whole())


@cache
def native_whole(layer: Attention, instruction_set: str, kv: str) -> np.ndarray:
    return layer.bench.native(layer.model, whole(), instruction_set, kv=kv)


def block_tables() -> list[list[int]]:
    """Every sequence's blocks, scattered over the pool."""
    order = np.random.default_rng(4).permutation(40).tolist()
    return [[order.pop() for _ in range(-(-length // 32))] for length in LENGTHS]


def part(index: int, begin: int, end: int) -> ScheduledSequence:
    """Tokens [begin, end) of a sequence; drawn from when they are its last."""
    first = sum(LENGTHS[:index])
    samples = (GREEDY,) if end == LENGTHS[index] else ()
    return ScheduledSequence(index, list(range(first + begin, first + end)), begin, block_tables()[index], samples)


def whole() -> StepPlan:
    return StepPlan([part(index, 0, length) for index, length in enumerate(LENGTHS)])


def chunked(sizes: Sequence[int]) -> list[StepPlan]:
    """The same work in steps: all but the last tokens in chunks of the given sizes in turn, then those."""
    steps = []
    starts = [0] * len(LENGTHS)
    while any(start < length - 1 for start, length in zip(starts, LENGTHS, strict=True)):
        size = sizes[len(steps) % len(sizes)]
        ends = [min(start + size, length - 1) for start, length in zip(starts, LENGTHS, strict=True)]
        steps.append(StepPlan([part(i, starts[i], ends[i]) for i in range(len(LENGTHS)) if starts[i] < ends[i]]))
        starts = ends
    return [*steps, StepPlan([part(i, starts[i], LENGTHS[i]) for i in range(len(LENGTHS))])]


@pytest.mark.parametrize(("kv", "tolerance"), [("f16", 2e-3), ("int8", 3e-2)])
@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_attention(instruction_set: str, heads: tuple[int, int, int], kv: str, tolerance: float) -> None:
    """What is rounded: K and V, to 11 bits or to codes of 1/127; both err in every score and every sum."""
    layer = attention(heads)
    expected = reference(layer)
    seen = layer.bench.native(layer.model, whole(), instruction_set, wide=True, kv=kv)
    assert np.abs(seen - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize(("kv", "tolerance"), [("f16", 2e-3), ("int8", 3e-2)])
@pytest.mark.parametrize("heads", [(3, 1, 64), (6, 2, 96)], ids=str)
def test_normed_heads_and_an_attention_factor(
    instruction_set: str, heads: tuple[int, int, int], kv: str, tolerance: float
) -> None:
    layer = attention(heads, normed=True)
    expected = reference(layer)
    seen = layer.bench.native(layer.model, whole(), instruction_set, wide=True, kv=kv)
    assert np.abs(seen - expected).max() <= tolerance * np.abs(expected).max()
    assert np.abs(reference(attention(heads)) - expected).max() > 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("spread", [0.0, 30.0])
def test_attention_to_all_and_to_one(instruction_set: str, spread: float) -> None:
    """Equal scores are a mean; huge ones take a single value, in whatever block it stands."""
    layer = attention((3, 1, 64), spread=spread)
    expected = reference(layer)
    seen = layer.bench.native(layer.model, whole(), instruction_set, wide=True, kv="f16")
    assert np.abs(seen - expected).max() <= 2e-2 * np.abs(expected).max()


@pytest.mark.parametrize("kv", ["int8", "f16"])
@pytest.mark.parametrize("sizes", [[1], [7], [32], [150], [5, 1, 40]], ids=str)
def test_chunks_give_the_same_bits_as_the_whole(instruction_set: str, kv: str, sizes: list[int]) -> None:
    layer = attention((6, 2, 64))
    *before, last = chunked(sizes)
    seen = layer.bench.native(layer.model, last, instruction_set, kv=kv, before=before)
    assert (seen == native_whole(layer, instruction_set, kv)).all()


@pytest.mark.parametrize("kv", ["int8", "f16"])
def test_every_instruction_set_gives_the_same_bits(kv: str, instruction_set: str) -> None:
    for heads in ((6, 2, 96), (6, 1, 32)):
        layer = attention(heads, normed=heads[2] == 96)
        seen = layer.bench.native(layer.model, whole(), instruction_set, kv=kv, threads=2)
        assert (seen == native_whole(layer, "scalar", kv)).all()
