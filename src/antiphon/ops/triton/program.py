"""A recorded model on a GPU: the recording half of `_native.Program`'s interface, over Triton kernels.

`ops.native.NativeOps` records into it as into the native program, so the fusions are decided in one place. A step
launches the recorded kernels one after another or, if it only decodes, replays a graph of them (`graphs`). Each row is
computed by itself, so results do not depend on what else runs. `submit` launches a step and `collect` waits for its
tokens, so that the next step can be launched in between: a token that is still to come is read on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from antiphon import _native
from antiphon.footprint import CORRECTED_PANELS, ROW_ALIGNMENT, SPLIT_FLOATS
from antiphon.ops.triton import head, norms, products
from antiphon.ops.triton.attending import Attention
from antiphon.ops.triton.buffers import FloatBuffer, ProgramShape, QuantizedBuffer
from antiphon.ops.triton.device import Device, Tensor
from antiphon.ops.triton.graphs import MOST_STEP_GRAPHS, Graphs
from antiphon.ops.triton.inputs import StepInputs
from antiphon.ops.triton.layouts import DeviceMatrix, upload_matrix
from antiphon.ops.triton.sampler import Outcome, Sampler, SubmittedStep
from antiphon.ops.triton.tables import launch_embed, upload_table
from antiphon.ops.triton.tiles import GpuTiles, InterpreterTiles, Tiles, next_power_of_two
from antiphon.ops.triton.work import AttentionCut
from antiphon.step import ScheduledSequence


class Program:
    """Records operations, then replays them in each step.

    `device`: where kernels run. `host`: threads and the native sampler. `tiles` and `cut`: how work is divided into
    programs, which changes no bits. `use_graphs`: whether decoding steps are captured. `on_progress` is called after
    each operation.
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
        use_graphs: bool = True,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.shape = shape
        self.num_kv_heads, self.head_dim = shape.num_kv_heads, shape.head_dim
        self._device = device
        self._tiles = tiles or (InterpreterTiles() if device.is_interpreter else GpuTiles())
        self._on_progress = on_progress
        self._operations: list[Callable[[], None]] = []
        self._first_drawing = -1  # the operation from which there is a row a drawn token
        self._floats: list[FloatBuffer] = []
        self._quantized: list[QuantizedBuffer] = []
        query_heads = shape.num_heads // shape.num_kv_heads
        state_floats = shape.num_kv_heads * (shape.head_dim + 17)
        cut = cut or AttentionCut.of(query_heads, SPLIT_FLOATS // state_floats)
        self._attention = Attention(device, shape, self._tiles, cut)
        self._inputs = StepInputs(device, shape, cut, pads=use_graphs)
        sizes = shape.max_sequences, shape.vocabulary
        self._sampler = Sampler(device, host, self._tiles, self._inputs, sizes, on_progress)
        self._graphs = Graphs(device, MOST_STEP_GRAPHS)
        self._maxima_stride = -(-shape.vocabulary // 64) * 2
        self._maxima = device.zeros((shape.max_sequences, self._maxima_stride), "float32")
        self._chosen = device.zeros((shape.max_sequences, CORRECTED_PANELS), "int32")
        self._num_last = 0  # rows of the last draw

    @property
    def bucket_rows(self) -> Sequence[int]:
        """The numbers of rows to which decoding steps are padded."""
        return self._inputs.buckets.rows

    @property
    def block_bytes(self) -> int:
        """Of one KV block, all layers."""
        return self._attention.block_bytes

    # Recording; as _native.Program.

    def float_buffer(self, width: int, sampled: bool) -> int:
        rows = self._capacity(sampled)
        self._floats.append(FloatBuffer(self._device.zeros((rows, width), "float32"), width, sampled))
        return len(self._floats) - 1

    def quantized_buffer(self, width: int, sampled: bool, wide: bool) -> int:
        rows = self._capacity(sampled)
        groups, planes, sums_planes = width // 32, 2 if sampled or wide else 1, 2 if sampled and not wide else 1
        codes = self._device.zeros((groups, planes, rows, 32), "int8")
        scales = self._device.zeros((groups, rows), "float32")
        sums = self._device.zeros((groups, sums_planes, rows), "int32")
        self._quantized.append(QuantizedBuffer(codes, scales, sums, width, wide, rows, sampled))
        return len(self._quantized) - 1

    def _capacity(self, sampled: bool) -> int:
        rows = self.shape.max_sequences if sampled else self.shape.max_tokens
        return -(-rows // ROW_ALIGNMENT) * ROW_ALIGNMENT

    def embed(self, table: _native.StoredMatrix, out: int) -> None:
        target, rows = self._floats[out], upload_table(self._device, table)
        tokens, drawn = self._inputs["tokens"], self._sampler.tokens
        self._operations.append(
            lambda: launch_embed(self._device, rows, self._rows(False), tokens, drawn, target.values)
        )

    def reorder(self, source: int, order: Sequence[int], out: int) -> None:
        x, target = self._floats[source], self._floats[out]
        columns = self._device.upload(np.array(order, np.int32))
        self._operations.append(lambda: self._take(x, columns, columns, target, has_rows=False))

    def select_rows(self, source: int, out: int) -> None:
        x, target = self._floats[source], self._floats[out]
        self._first_drawing = len(self._operations)
        rows = self._inputs["drawn_rows"]
        self._operations.append(lambda: self._take(x, rows, rows, target, has_rows=True))

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
                WIDTH=x.width, PLANES=target.planes, APART=target.apart, ROWS=tile,
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
            self._linear(x, weights, biases if bias else None, values, target.width, accumulate=accumulate)

        self._operations.append(body)

    def _linear(
        self,
        x: QuantizedBuffer,
        weights: DeviceMatrix,
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
            **weights.constants(), PLANES=x.planes, WIDE=x.wide, HAS_BIAS=bias is not None,
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
        source, target = self._floats[qkv], self._quantized[out]
        bias = self._attention.upload_key_bias(np.array(key_bias, np.float32)) if any(key_bias) else None
        weights = [self._device.upload(np.array(w, np.float32)) for w in (query_norm, key_norm)] if query_norm else []
        self._operations.append(
            lambda: self._attention.launch(self._inputs, source, layer, target, weights, epsilon, bias)
        )

    def logits(self, source: int, matrix: _native.PackedMatrix) -> None:
        x, weights = self._quantized[source], upload_matrix(self._device, matrix)
        panels = -(-self.shape.vocabulary // 32)
        count = min(CORRECTED_PANELS, panels)

        def body() -> None:
            maxima = None if x.wide else self._maxima
            self._linear(x, weights, None, self._sampler.logits, self.shape.vocabulary, maxima=maxima)
            if not x.wide:
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
            self._sampler.logits, self.shape.vocabulary, COUNT=count, **weights.constants(), PANELS=tile, TOKENS=8,
            STAGES=4, EIGHTS=True,
        )  # fmt: skip

    # Running.

    def run(self, sequences: Sequence[ScheduledSequence], requests: Sequence[_native.SampleRequest]) -> list[Outcome]:
        """One step; an outcome for each request, in the order of the sequences' samples."""
        return self.collect(self.submit(sequences, requests))

    def submit(
        self, sequences: Sequence[ScheduledSequence], requests: Sequence[_native.SampleRequest]
    ) -> SubmittedStep:
        """Launch one step; waits for nothing unless more tokens are drawn than sequences may run.

        `requests`: as many for each sequence as it has samples. Raises ValueError if the step does not fit.
        """
        rows = self._inputs.take(sequences, self._sampler.places)
        if self._inputs.bucket is None:
            self._launch(0, self._first_drawing)
        specs = [(sequence.sequence_id, spec) for sequence in sequences for spec in sequence.samples]
        step, most = SubmittedStep(), self.shape.max_sequences
        self._num_last = 0
        for first in range(0, len(rows), most):
            self.collect(step)  # the inputs are used again, and so are the logits
            part = slice(first, first + most)
            self._launch_logits(rows[part])
            self._sampler.submit(step, specs[part], requests[part])
        return step

    def _launch_logits(self, rows: Sequence[int]) -> None:
        """Compute the logits of these rows, and in a decoding step all that comes before."""
        self._num_last = len(rows)
        self._inputs.put_drawn(rows)
        bucket, end = self._inputs.bucket, len(self._operations)
        if bucket:
            self._graphs.run(bucket, lambda: self._launch(0, end))
        else:
            self._launch(self._first_drawing, end)

    def collect(self, step: SubmittedStep) -> list[Outcome]:
        """Wait for the tokens of a step, and draw those that are left to the host."""
        return self._sampler.collect(step)

    def last_logits(self) -> npt.NDArray[np.float32]:
        """The last step's last sampled rows, float32 [rows, vocabulary], before penalties."""
        return self._device.download(self._sampler.logits[: self._num_last])

    def _launch(self, begin: int, end: int) -> None:
        for operation in self._operations[begin:end]:
            operation()
            self._on_progress()

    def _rows(self, sampled: bool) -> int:
        return self._inputs.num_drawn if sampled else self._inputs.num_tokens
