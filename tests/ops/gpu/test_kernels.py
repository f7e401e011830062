"""Each kernel of the GPU backend gives the native program's bits, whatever the tiles: run by Triton's interpreter.

Every comparison is `==`. What a GPU's compiler makes of the kernels is looked at by test_compiled.py.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from op_programs import OpBench, one_token_each, ones, show
from tiny_models import GREEDY, tensor

from antiphon.ops.triton.interpreter import fused_multiply_add
from antiphon.ops.triton.tiles import InterpreterTiles, Tile
from antiphon.ops.triton.work import AttentionCut
from antiphon.step import ScheduledSequence, StepPlan

WIDTH = 96


class FixedTiles(InterpreterTiles):
    """The tile of every product, and the rows and panels of every other program."""

    def __init__(self, tile: Tile, rows: int = 1, panels: int = 2) -> None:
        self._tile, self._rows, self._panels = tile, rows, panels

    def product(self, rows: int, byte_rows: int, *, whole_panels: bool) -> Tile:
        return replace(self._tile, byte_rows=max(self._tile.byte_rows, 32 if whole_panels else 16))

    def rows(self, rows: int) -> int:
        return self._rows

    def corrected_panels(self) -> int:
        return self._panels


def rows_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)


def weights(rows: int, columns: int, type: str, seed: int = 1) -> Any:
    values = np.random.default_rng(seed).standard_normal((rows, columns)) / np.sqrt(columns)
    return tensor(f"{type} {rows}", values.astype(np.float32), type)


@pytest.mark.parametrize(
    ("type", "wide", "tile", "count"),
    [
        ("Q8_0", False, Tile(16, 8, eights=True), 1),
        ("Q8_0", True, Tile(32, 16, eights=True), 3),
        ("Q4_0", False, Tile(64, 8), 9),  # more tokens than a tile has, and channels that fill no tile
        ("Q4_0", True, Tile(16, 16), 2),
        ("Q4_1", False, Tile(32, 8), 3),
        ("Q4_1", False, Tile(64, 8, eights=True), 3),
        ("Q5_1", False, Tile(32, 16, eights=True), 17),
        ("F32", False, Tile(128, 8), 2),
    ],
)
def test_a_product_has_the_cpu_s_bits_in_every_format_and_tile(type: str, wide: bool, tile: Tile, count: int) -> None:
    def model(ops: Any, x: Any) -> Any:
        y = ops.linear(ops.rms_norm(x, ops.vector(ones(WIDTH))), ops.matrix([weights(WIDTH, WIDTH, type)]))
        return show(ops, ops.add(x, y), WIDTH, WIDTH)

    bench = OpBench(rows_of(count), WIDTH)
    plan = one_token_each(count)
    ours = bench.gpu(model, plan, wide=wide, tiles=FixedTiles(tile))
    assert np.array_equal(ours, bench.native(model, plan, wide=wide))


@pytest.mark.parametrize(
    ("type", "wide", "tile"), [("Q4_0", False, Tile(32, 8, eights=True)), ("Q8_0", True, Tile(64, 16))]
)
def test_gate_and_up_have_the_cpu_s_bits(type: str, wide: bool, tile: Tile) -> None:
    inner = 160

    def model(ops: Any, x: Any) -> Any:
        parts = [weights(inner, WIDTH, type, seed) for seed in (2, 3)]
        h = ops.linear(ops.rms_norm(x, ops.vector(ones(WIDTH))), ops.matrix(parts, interleave=True))
        down = ops.matrix([weights(WIDTH, inner, type)])
        return show(ops, ops.add(x, ops.linear(ops.silu_mul(h), down)), WIDTH, WIDTH)

    bench = OpBench(30 * rows_of(5), WIDTH)  # large enough for exponentials at their limits
    ours = bench.gpu(model, one_token_each(5), wide=wide, tiles=FixedTiles(tile, rows=4))
    assert np.array_equal(ours, bench.native(model, one_token_each(5), wide=wide))


def test_the_head_s_second_pass_corrects_the_panels_that_the_cpu_corrects() -> None:
    vocabulary = 70 * 32 + 5  # more panels than are corrected, and one that is not whole
    values = np.random.default_rng(4).standard_normal((vocabulary, WIDTH)).astype(np.float32)
    values[32:512] = values[1]  # panels whose maxima are equal: the last of them are taken
    head = tensor("head", values, "Q8_0")

    def model(ops: Any, x: Any) -> Any:
        return ops.logits(ops.rms_norm(ops.sampled_rows(x), ops.vector(ones(WIDTH))), ops.matrix([head]))

    rows = rows_of(3)
    rows[2] = values[1]
    bench = OpBench(rows, vocabulary)
    native = bench.native(model, one_token_each(3))
    assert np.array_equal(bench.gpu(model, one_token_each(3)), native)
    few = FixedTiles(Tile(32, 8), panels=16)
    assert np.array_equal(bench.gpu(model, one_token_each(3), tiles=few), native)


def attending(ops: Any, x: Any) -> Any:
    """Attention of two query heads a KV head, shown through a head that is the identity."""
    qkv = ops.matrix([weights((4 + 2 * 2) * 32, WIDTH, "Q8_0", seed=5)])
    attended = ops.attention(ops.linear(ops.rms_norm(x, ops.vector(ones(WIDTH))), qkv), 0)
    return show(ops, ops.add(x, ops.linear(attended, ops.matrix([weights(WIDTH, 128, "Q8_0", seed=6)]))), WIDTH, 600)


def chunks(tokens: list[int], blocks: list[int], *ends: int) -> list[StepPlan]:
    starts = (0, *ends)
    return [
        StepPlan([ScheduledSequence(0, tokens[start:end], start, blocks, (GREEDY,))])
        for start, end in zip(starts, ends, strict=False)
    ]


@pytest.mark.parametrize(
    ("cut", "ends"),
    [
        (AttentionCut(2, 16, 512, 10_000), (280, 288, 289)),  # the segments of few tokens are computed apart
        (AttentionCut(2, 16, 128, 0), (200, 289)),  # all segments in one program
    ],
)
def test_attention_over_segments_has_the_cpu_s_bits_however_it_is_cut(cut: AttentionCut, ends: tuple[int, ...]) -> None:
    tokens = np.random.default_rng(7).integers(0, 64, 289).tolist()
    blocks = np.random.default_rng(8).permutation(12)[:10].tolist()
    bench = OpBench(rows_of(64), 600, heads=(4, 2, 32), num_blocks=12)
    *before, last = chunks(tokens, blocks, *ends)
    *native_before, native_last = chunks(tokens, blocks, 100, 256, 257, 289)
    native = bench.native(attending, native_last, before=native_before)
    assert np.array_equal(bench.gpu(attending, last, before=before, cut=cut), native)


def test_what_is_no_number_stays_in_its_own_row() -> None:
    rows = rows_of(4)
    rows[1, 3] = np.inf
    rows[2] = 0.0
    bench = OpBench(rows, 600, heads=(4, 2, 32))
    plan = one_token_each(4)
    ours, native = bench.gpu(attending, plan), bench.native(attending, plan)
    assert np.isnan(ours[1]).all()
    assert np.isnan(native[1]).all()
    assert np.array_equal(ours[[0, 2, 3]], native[[0, 2, 3]])


def test_the_interpreter_s_fused_multiply_add_rounds_once() -> None:
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    library.fmaf.restype, library.fmaf.argtypes = ctypes.c_float, [ctypes.c_float] * 3
    rng = np.random.default_rng(9)
    a, b = (rng.integers(1, 4096, (2, 20_000)) * 2.0 ** rng.integers(-12, 12, (2, 20_000))).astype(np.float32)
    c = np.where(rng.random(20_000) < 0.5, 2.0 ** rng.integers(-60, 30, 20_000), -a * b).astype(np.float32)
    a[:5000] *= np.float32(1e-22)  # results below the least normal number
    b[:5000] *= np.float32(1e-22)
    c[:5000] *= np.float32(1e-41)
    truth = np.array([library.fmaf(*values) for values in zip(a, b, c, strict=True)], np.float32)
    assert np.array_equal(fused_multiply_add(a, b, c).view(np.uint32), truth.view(np.uint32))
    assert not np.array_equal((a * b + c).view(np.uint32), truth.view(np.uint32))
