"""A recorded model on a GPU: the recording half of `_native.Program`'s interface, over Triton kernels.

`ops.native.NativeOps` records into it as into the native program, so the fusions are decided in one place. A step
launches the recorded kernels one after another; rows are computed whether or not others share the step, so results do
not depend on what else runs. Tokens are drawn by the native sampler from logits that are copied to the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from antiphon import _native
from antiphon.footprint import CORRECTED_PANELS, ROW_ALIGNMENT, SPLIT_FLOATS
from antiphon.ops.triton import attention as attention_kernels
from antiphon.ops.triton import head, norms, products
from antiphon.ops.triton.device import Device, Tensor
from antiphon.ops.triton.layouts import DeviceMatrix, upload_matrix
from antiphon.ops.triton.tiles import GpuTiles, InterpreterTiles, Tiles, next_power_of_two
from antiphon.ops.triton.work import AttentionCut, StepWork, plan_work
from antiphon.step import ScheduledSequence


@dataclass(frozen=True, slots=True)
class ProgramShape:
    """Every size that a program needs; as `_native.ProgramShape`, with an int8 KV cache."""

    max_tokens: int
    max_sequences: int
    vocabulary: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_length: int
    num_blocks: int
    rope_frequencies: Sequence[float]
    rope_attention_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class FloatBuffer:
    values: Tensor  # float32 [capacity, width]
    width: int
    sampled: bool


@dataclass(frozen=True, slots=True)
class QuantizedBuffer:
    """Layout in `norms`; `capacity` rows a plane."""

    codes: Tensor
    scales: Tensor
    sums: Tensor
    width: int
    planes: int
    capacity: int
    sampled: bool

    def arguments(self) -> tuple[Tensor, Tensor, Tensor, int]:
        """What kernels take of it, in order."""
        return self.codes, self.scales, self.sums, self.capacity


@dataclass(frozen=True, slots=True)
class KvLayer:
    k: Tensor
    k_scales: Tensor
    v: Tensor
    v_scales: Tensor

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.k, self.k_scales, self.v, self.v_scales


@dataclass(frozen=True, slots=True)
class KeyBias:
    """The part of K's bias that is not in the pool; `width`: pairs a KV head, a power of two; some may be unused."""

    width: int
    pairs: Tensor
    first: Tensor
    second: Tensor
    turns: Tensor
    counts: Tensor


class Program:
    """Records operations, then replays them in each step.

    `device`: where kernels run. `host`: threads and the native sampler. `tiles` and `cut`: how work is divided into
    programs, which changes no bits. `on_progress` is called after each operation.
    """

    has_int8_kv = True

    def __init__(
        self,
        device: Device,
        host: _native.Device,
        shape: ProgramShape,
        *,
        tiles: Tiles | None = None,
        cut: AttentionCut | None = None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.shape = shape
        self.num_kv_heads, self.head_dim = shape.num_kv_heads, shape.head_dim
        self._device, self._host = device, host
        self._tiles = tiles or (InterpreterTiles() if device.is_interpreter else GpuTiles())
        self._on_progress = on_progress
        self._operations: list[Callable[[], None]] = []
        self._first_drawing = -1  # the operation from which there is a row a drawn token
        self._floats: list[FloatBuffer] = []
        self._quantized: list[QuantizedBuffer] = []
        self._table: _native.StoredMatrix | None = None
        self._terms: Tensor | None = None
        self._size = next_power_of_two(shape.head_dim)
        self._run = shape.head_dim & -shape.head_dim  # of the Hadamard transform
        query_heads = shape.num_heads // shape.num_kv_heads
        state_floats = shape.num_kv_heads * (shape.head_dim + 17)
        self._cut = cut or AttentionCut.of(query_heads, SPLIT_FLOATS // state_floats)
        self._allocate()

    def _allocate(self) -> None:
        shape, device = self.shape, self._device
        heads, dim, planes = shape.num_kv_heads, shape.head_dim, 2
        tokens = shape.num_blocks * 32
        self._pool = [
            KvLayer(
                device.zeros((tokens * heads * dim,), "int8"),
                device.zeros((tokens * heads * dim // 32,), "float16"),
                device.zeros((tokens * heads * dim,), "int8"),
                device.zeros((tokens * heads,), "float16"),
            )
            for _ in range(shape.num_layers)
        ]
        cosines, sines = _native.rotary_tables(
            list(shape.rope_frequencies), shape.rope_attention_factor, shape.context_length
        )
        self._cosines, self._sines = device.upload(cosines), device.upload(sines)
        queries = shape.max_tokens * shape.num_heads * planes
        self._q_codes = device.zeros((queries * dim,), "int8")
        self._q_scales = device.zeros((queries * dim // 32,), "float32")
        state_rows = shape.max_tokens * (shape.num_heads // heads) + self._cut.split_rows
        self._state_outputs = device.zeros((state_rows * heads * dim,), "float32")
        self._state_sums = device.zeros((state_rows * heads * 16,), "float32")
        self._state_maxima = device.zeros((state_rows * heads,), "float32")
        self._logits = device.zeros((shape.max_sequences, shape.vocabulary), "float32")
        self._maxima_stride = -(-shape.vocabulary // 64) * 2
        self._maxima = device.zeros((shape.max_sequences, self._maxima_stride), "float32")
        self._chosen = device.zeros((shape.max_sequences, CORRECTED_PANELS), "int32")
        self._drawn = device.zeros((shape.max_sequences,), "int32")
        self._inputs: dict[str, Tensor] = {}

    @property
    def block_bytes(self) -> int:
        """Of one KV block, all layers."""
        shape = self.shape
        values = shape.num_kv_heads * shape.head_dim * 32
        return shape.num_layers * (2 * values + 2 * (values // 32) + 2 * shape.num_kv_heads * 32)

    # Recording; as _native.Program.

    def float_buffer(self, width: int, sampled: bool) -> int:
        rows = self._capacity(sampled)
        self._floats.append(FloatBuffer(self._device.zeros((rows, width), "float32"), width, sampled))
        return len(self._floats) - 1

    def quantized_buffer(self, width: int, sampled: bool, planes: int) -> int:
        rows = self._capacity(sampled)
        shape = (width // 32, planes, rows)
        codes = self._device.zeros((*shape, 32), "int8")
        scales, sums = self._device.zeros(shape, "float32"), self._device.zeros(shape, "int32")
        self._quantized.append(QuantizedBuffer(codes, scales, sums, width, planes, rows, sampled))
        return len(self._quantized) - 1

    def _capacity(self, sampled: bool) -> int:
        rows = self.shape.max_sequences if sampled else self.shape.max_tokens
        return -(-rows // ROW_ALIGNMENT) * ROW_ALIGNMENT

    def embed(self, table: _native.StoredMatrix, out: int) -> None:
        target = self._floats[out]
        rows = np.empty((self.shape.max_tokens, table.columns), np.float32)

        def body() -> None:
            table.dequantize_rows(self._token_ids, rows)
            self._device.fill(target.values, rows[: len(self._token_ids)])

        self._operations.append(body)

    def reorder(self, source: int, order: Sequence[int], out: int) -> None:
        x, target = self._floats[source], self._floats[out]
        columns = self._device.upload(np.array(order, np.int32))
        self._operations.append(lambda: self._take(x, self._drawn, columns, target, has_rows=False))

    def select_rows(self, source: int, out: int) -> None:
        x, target = self._floats[source], self._floats[out]
        self._first_drawing = len(self._operations)
        self._operations.append(lambda: self._take(x, self._drawn, self._drawn, target, has_rows=True))

    def _take(self, x: FloatBuffer, rows: Tensor, columns: Tensor, out: FloatBuffer, *, has_rows: bool) -> None:
        at_once = min(1024, next_power_of_two(x.width))
        self._device.launch(
            norms.take, (self._rows(out.sampled),), x.values, rows, columns, out.values,
            WIDTH=x.width, HAS_ROWS=has_rows, AT_ONCE=at_once,
        )  # fmt: skip

    def rms_norm(self, source: int, weight: Sequence[float], epsilon: float, out: int) -> None:
        x, target = self._floats[source], self._quantized[out]
        weights = self._device.upload(np.array(weight, np.float32))

        def body() -> None:
            rows = self._rows(x.sampled)
            tile = self._tiles.rows(rows)
            self._device.launch(
                norms.rms_norm, (-(-rows // tile),), x.values, rows, weights, epsilon, *target.arguments(),
                WIDTH=x.width, PLANES=target.planes, ROWS=tile,
                GROUPS_AT_ONCE=min(64, next_power_of_two(x.width // 32)),
            )  # fmt: skip

        self._operations.append(body)

    def linear(
        self,
        source: int,
        matrix: _native.PackedMatrix,
        bias: Sequence[float],
        out: int,
        accumulate: bool,
        first_column: int = 0,
    ) -> None:
        x, target, weights = self._quantized[source], self._floats[out], upload_matrix(self._device, matrix)
        padded = np.zeros(weights.num_channels, np.float32)
        padded[: len(bias)] = bias
        biases = self._device.upload(padded) if bias else target.values
        values = target.values.view(-1)[first_column:]

        def body() -> None:
            self._linear(x, weights, x.planes, biases if bias else None, values, target.width, accumulate=accumulate)

        self._operations.append(body)

    def _linear(
        self,
        x: QuantizedBuffer,
        weights: DeviceMatrix,
        planes_used: int,
        bias: Tensor | None,
        out: Tensor,
        out_stride: int,
        *,
        accumulate: bool = False,
        maxima: Tensor | None = None,
    ) -> None:
        rows = self._rows(x.sampled)
        tile = self._tiles.product(rows, weights.num_channels // 2, whole_panels=maxima is not None)
        grid = (-(-weights.num_channels // (2 * tile.byte_rows)), -(-rows // tile.tokens))
        self._device.launch(
            products.linear, grid, *x.arguments(), rows, *weights.arguments(), out if bias is None else bias,
            out, out_stride, weights.rows, out if maxima is None else maxima, self._maxima_stride,
            **weights.constants(), PLANES=x.planes, PLANES_USED=planes_used, HAS_BIAS=bias is not None,
            ACCUMULATE=accumulate, HAS_MAXIMA=maxima is not None, **tile.constants(),
        )  # fmt: skip

    def linear_silu_mul(self, source: int, matrix: _native.PackedMatrix, out: int) -> None:
        x, target, weights = self._quantized[source], self._quantized[out], upload_matrix(self._device, matrix)

        def body() -> None:
            rows = self._rows(x.sampled)
            tile = self._tiles.product(rows, weights.num_channels // 2, whole_panels=True)
            grid = (-(-weights.num_channels // (2 * tile.byte_rows)), -(-rows // tile.tokens))
            self._device.launch(
                products.linear_silu_mul, grid, *x.arguments(), rows, *weights.arguments(), *target.arguments(),
                **weights.constants(), PLANES=x.planes, **tile.constants(),
            )  # fmt: skip

        self._operations.append(body)

    def attention(
        self,
        qkv: int,
        layer: int,
        out: int,
        query_norm: Sequence[float],
        key_norm: Sequence[float],
        epsilon: float,
        key_bias: Sequence[float] = (),
    ) -> None:
        source, target, kv = self._floats[qkv], self._quantized[out], self._pool[layer]
        bias = self._key_bias(np.array(key_bias, np.float32)) if any(key_bias) else None
        norms = [self._device.upload(np.array(w, np.float32)) for w in (query_norm, key_norm)] if query_norm else []

        def body() -> None:
            self._rope_and_store(source, kv, norms, epsilon, target.planes, bias)
            self._attend("small_items", self._cut.small_rows, kv, target.planes, bias)
            self._attend("large_items", self._cut.large_rows, kv, target.planes, bias)
            self._fold(target)

        self._operations.append(body)

    def _key_bias(self, key_bias: npt.NDArray[np.float32]) -> KeyBias:
        shape, half = self.shape, self.shape.head_dim // 2
        heads = key_bias.reshape(shape.num_kv_heads, 2, half)
        pairs = [np.flatnonzero(head.any(axis=0)) for head in heads]
        width = next_power_of_two(max(map(len, pairs)))
        cosines, sines = _native.rotary_tables(list(shape.rope_frequencies), 1.0, 32)
        numbers = np.zeros((len(heads), width), np.int32)
        biases = np.zeros((2, len(heads), width), np.float32)
        turns = np.zeros((len(heads), 2, width, 32), np.float32)
        for h, chosen in enumerate(pairs):
            numbers[h, : len(chosen)] = chosen
            biases[:, h, : len(chosen)] = heads[h][:, chosen]
            turns[h, 0, : len(chosen)], turns[h, 1, : len(chosen)] = cosines[:, chosen].T, sines[:, chosen].T
        arrays = (numbers, biases[0], biases[1], turns, np.array([len(chosen) for chosen in pairs], np.int32))
        terms = shape.max_tokens * shape.num_heads * 2 * width  # layers share them, and the widest needs the most
        if self._terms is None or self._terms.shape[0] < terms:
            self._terms = self._device.zeros((terms,), "float32")
        return KeyBias(width, *map(self._device.upload, arrays))

    def _head_constants(self, planes: int, bias: KeyBias | None) -> dict[str, int]:
        shape = self.shape
        constants = {"HEADS": shape.num_heads, "KV_HEADS": shape.num_kv_heads, "DIM": shape.head_dim}
        return constants | {"SIZE": self._size, "PLANES": planes, "PAIRS": bias.width if bias else 0}

    def _rope_and_store(
        self,
        qkv: FloatBuffer,
        kv: KvLayer,
        norms: Sequence[Tensor],
        epsilon: float,
        planes: int,
        bias: KeyBias | None,
    ) -> None:
        shape, nothing = self.shape, self._cosines
        rotation = np.float32(1) / np.sqrt(np.float32(self._run))
        query_scale = rotation * (np.float32(1) / np.sqrt(np.float32(shape.head_dim)))
        query_norm, key_norm = norms or (nothing, nothing)
        biases = (
            (bias.pairs, bias.first, bias.second, self._terms) if bias else (self._drawn, nothing, nothing, nothing)
        )
        rows = self._num_tokens
        tile = self._tiles.rows(rows)
        self._device.launch(
            attention_kernels.rope_and_store, (-(-rows // tile), shape.num_heads + shape.num_kv_heads),
            qkv.values, rows, self._inputs["positions"], self._inputs["blocks"], self._cosines, self._sines,
            query_norm, key_norm, epsilon, float(query_scale), float(rotation), self._q_codes, self._q_scales,
            *kv.tensors(), *biases, **self._head_constants(planes, bias), RUN=self._run, HAS_NORMS=bool(norms),
            ROWS=tile, warps=1,
        )  # fmt: skip

    def _attend(self, items: str, rows: int, kv: KvLayer, planes: int, bias: KeyBias | None) -> None:
        count = len(getattr(self._work, items))
        nothing, numbers = self._cosines, self._drawn
        biases = (self._terms, bias.turns, bias.pairs, bias.counts) if bias else (nothing, nothing, numbers, numbers)
        self._device.launch(
            attention_kernels.attend, (count, self.shape.num_kv_heads), self._inputs[items], self._inputs["tables"],
            self._q_codes, self._q_scales, *kv.tensors(), self._cosines, self._sines, *biases, self._state_outputs,
            self._state_sums, self._state_maxima, **self._head_constants(planes, bias), ROWS=rows, STAGES=2,
            warps=4 if rows > 16 else 2,
        )  # fmt: skip

    def _fold(self, out: QuantizedBuffer) -> None:
        constants = self._head_constants(out.planes, None)
        del constants["PAIRS"]
        rows = self._num_tokens
        tile = self._tiles.rows(rows)
        self._device.launch(
            attention_kernels.fold, (-(-rows // tile), self.shape.num_heads), self._inputs["states"], rows,
            self._inputs["positions"], self._state_outputs, self._state_sums, self._state_maxima, *out.arguments(),
            **constants, ROWS=tile, warps=1,
        )  # fmt: skip

    def logits(self, source: int, matrix: _native.PackedMatrix, wide: bool) -> None:
        x, weights = self._quantized[source], upload_matrix(self._device, matrix)
        panels = -(-self.shape.vocabulary // 32)
        count = min(CORRECTED_PANELS, panels)

        def body() -> None:
            planes = 2 if wide else 1
            maxima = None if wide else self._maxima
            self._linear(x, weights, planes, None, self._logits, self.shape.vocabulary, maxima=maxima)
            if not wide:
                self._correct(x, weights, panels, count)

        self._operations.append(body)

    def _correct(self, x: QuantizedBuffer, weights: DeviceMatrix, panels: int, count: int) -> None:
        rows = self._rows(True)
        self._device.launch(
            head.choose_panels, (rows,), self._maxima, self._maxima_stride, self._chosen, panels,
            COUNT=count, SIZE=next_power_of_two(panels), warps=8,
        )  # fmt: skip
        tile = self._tiles.corrected_panels()
        self._device.launch(
            head.correct_panels, (-(-count // tile), rows), self._chosen, *x.arguments(), *weights.arguments(),
            self._logits, self.shape.vocabulary, COUNT=count, **weights.constants(), PANELS=tile, TOKENS=16, STAGES=3,
        )  # fmt: skip

    # Running.

    def run(
        self, sequences: Sequence[ScheduledSequence], requests: Sequence[_native.SampleRequest]
    ) -> list[_native.SampleOutcome]:
        """One step; an outcome for each request, in the order of the sequences' samples.

        `requests`: as many for each sequence as it has samples. Raises ValueError if the step does not fit.
        """
        self._take_step(sequences)
        self._replay(0, self._first_drawing)
        outcomes: list[_native.SampleOutcome] = []
        most = self.shape.max_sequences
        for first in range(0, len(self._sampled_rows), most):
            rows = self._sampled_rows[first : first + most]
            self._num_drawn = len(rows)
            self._device.fill(self._drawn, np.array(rows, np.int32))
            self._replay(self._first_drawing, len(self._operations))
            self._last_logits = self._device.download(self._logits[: len(rows)])
            copy = self._last_logits.copy() if first + most >= len(self._sampled_rows) else self._last_logits
            outcomes += _native.sample_rows(self._host, copy, requests[first : first + most])
        return outcomes

    def last_logits(self) -> npt.NDArray[np.float32]:
        """The last step's last sampled rows, float32 [rows, vocabulary], before penalties."""
        return self._last_logits

    def _replay(self, begin: int, end: int) -> None:
        for operation in self._operations[begin:end]:
            operation()
            self._on_progress()

    def _rows(self, sampled: bool) -> int:
        return self._num_drawn if sampled else self._num_tokens

    def _take_step(self, sequences: Sequence[ScheduledSequence]) -> None:
        for sequence in sequences:
            self._check(sequence)
        self._token_ids = [token_id for sequence in sequences for token_id in sequence.token_ids]
        self._num_tokens = len(self._token_ids)
        if self._num_tokens > self.shape.max_tokens or len(sequences) > self.shape.max_sequences:
            raise ValueError("the step is larger than the program was made for")
        self._sampled_rows: list[int] = []
        end = 0
        for sequence in sequences:
            end += len(sequence.token_ids)
            self._sampled_rows += range(end - len(sequence.samples), end)
        self._last_logits = np.empty((0, self.shape.vocabulary), np.float32)
        self._send(plan_work(sequences, self._cut))

    def _send(self, work: StepWork) -> None:
        self._work = work
        for name in ("positions", "blocks", "tables", "small_items", "large_items", "states"):
            self._put(name, getattr(work, name))

    def _put(self, name: str, array: npt.NDArray[np.int32]) -> None:
        """To the input of this name, which grows as needed."""
        held = self._inputs.get(name)
        if held is None or held.shape[0] < array.size:
            self._inputs[name] = held = self._device.zeros((next_power_of_two(max(array.size, 1024)),), "int32")
        self._device.fill(held, array)

    def _check(self, sequence: ScheduledSequence) -> None:
        """Raises ValueError for what the kernels would read or write out of bounds."""
        shape, count = self.shape, len(sequence.token_ids)
        end = sequence.num_computed_tokens + count
        if not (count and sequence.num_computed_tokens >= 0 and end <= shape.context_length):
            raise ValueError(f"tokens {sequence.num_computed_tokens} to {end} do not fit {shape.context_length}")
        if len(sequence.samples) > count:
            raise ValueError("more tokens are to be drawn than computed")
        if len(sequence.block_table) * 32 < end or not all(0 <= b < shape.num_blocks for b in sequence.block_table):
            raise ValueError("the block table does not fit the sequence or the pool")
        if not all(0 <= token_id < shape.vocabulary for token_id in sequence.token_ids):
            raise ValueError("a token id is outside the vocabulary")
