"""A recorded model on a GPU: the recording half of `_native.Program`'s interface, over Triton kernels.

`ops.native.NativeOps` records into it as into the native program, so the fusions are decided in one place. A step
launches the recorded kernels one after another or, if it only decodes, replays a graph of them (`graphs`). Each row is
computed by itself, so results do not depend on what else runs. `submit` launches a step and `collect` waits for its
tokens, so that the next step can be launched in between: a token that is still to come is read on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from antiphon import _native
from antiphon.footprint import CORRECTED_PANELS, DRAW_FIELDS, ROW_ALIGNMENT, SPLIT_FLOATS
from antiphon.ops.triton import head, norms, products
from antiphon.ops.triton.attending import Attention
from antiphon.ops.triton.buffers import FloatBuffer, ProgramShape, QuantizedBuffer
from antiphon.ops.triton.device import Device, Tensor
from antiphon.ops.triton.drawing import Drawing, Drawn, drawn, is_drawable, kind_of, row_parameters
from antiphon.ops.triton.graphs import MOST_DRAW_GRAPHS, MOST_STEP_GRAPHS, Graphs
from antiphon.ops.triton.inputs import StepInputs
from antiphon.ops.triton.layouts import DeviceMatrix, upload_matrix
from antiphon.ops.triton.tables import launch_embed, upload_table
from antiphon.ops.triton.tiles import GpuTiles, InterpreterTiles, Tiles, next_power_of_two
from antiphon.ops.triton.work import AttentionCut
from antiphon.step import SampleSpec, ScheduledSequence

Outcome: TypeAlias = "_native.SampleOutcome | Drawn"


@dataclass(slots=True)
class SubmittedStep:
    """A step whose kernels were launched. `outcomes`: one for each sample; None: the device has it."""

    outcomes: list[Outcome | None]
    fetched: Tensor | None = None  # int32, the tokens of the outcomes from `first` on
    event: Any = None
    first: int = 0


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
        query_heads = shape.num_heads // shape.num_kv_heads
        state_floats = shape.num_kv_heads * (shape.head_dim + 17)
        cut = cut or AttentionCut.of(query_heads, SPLIT_FLOATS // state_floats)
        self._attention = Attention(device, shape, self._tiles, cut)
        self._inputs = StepInputs(device, shape, cut)
        self._step_graphs, self._draw_graphs = Graphs(device, MOST_STEP_GRAPHS), Graphs(device, MOST_DRAW_GRAPHS)
        self._allocate()

    def _allocate(self) -> None:
        shape, device = self.shape, self._device
        self._logits = device.zeros((shape.max_sequences, shape.vocabulary), "float32")
        self._maxima_stride = -(-shape.vocabulary // 64) * 2
        self._maxima = device.zeros((shape.max_sequences, self._maxima_stride), "float32")
        self._chosen = device.zeros((shape.max_sequences, CORRECTED_PANELS), "int32")
        self._tokens = device.zeros((shape.max_sequences,), "int32")  # that were drawn last
        self._drawing = Drawing(device, self._tiles, self._logits, self._inputs["parameters"], self._tokens)
        self._fetched = [device.pinned(shape.max_sequences, "int32") for _ in range(2)]
        self._places: dict[int, int] = {}  # of sequences in `_tokens`
        self._num_last = 0  # rows of the last draw

    @property
    def bucket_rows(self) -> Sequence[int]:
        """The numbers of rows for which graphs are captured."""
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
        target, rows = self._floats[out], upload_table(self._device, table)
        tokens = self._inputs["tokens"]
        self._operations.append(
            lambda: launch_embed(self._device, rows, self._rows(False), tokens, self._tokens, target.values)
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
        source, target = self._floats[qkv], self._quantized[out]
        bias = self._attention.upload_key_bias(np.array(key_bias, np.float32)) if any(key_bias) else None
        weights = [self._device.upload(np.array(w, np.float32)) for w in (query_norm, key_norm)] if query_norm else []
        self._operations.append(
            lambda: self._attention.launch(self._inputs, source, layer, target, weights, epsilon, bias)
        )

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

    def run(self, sequences: Sequence[ScheduledSequence], requests: Sequence[_native.SampleRequest]) -> list[Outcome]:
        """One step; an outcome for each request, in the order of the sequences' samples."""
        return self.collect(self.submit(sequences, requests))

    def submit(
        self, sequences: Sequence[ScheduledSequence], requests: Sequence[_native.SampleRequest]
    ) -> SubmittedStep:
        """Launch one step. It waits for the device only where the host has to draw.

        `requests`: as many for each sequence as it has samples. Raises ValueError if the step does not fit.
        """
        rows = self._inputs.take(sequences, self._places)
        if self._inputs.bucket is None:
            self._launch(0, self._first_drawing)
        specs = [(sequence.sequence_id, spec) for sequence in sequences for spec in sequence.samples]
        step, most = SubmittedStep([]), self.shape.max_sequences
        self._num_last = 0
        for first in range(0, len(rows), most):
            step.outcomes = [*self.collect(step)]  # the inputs are used again, and so are the logits
            part = slice(first, first + most)
            self._places = {id: place for place, (id, _) in enumerate(specs[part])}
            self._draw(step, rows[part], [spec for _, spec in specs[part]], requests[part])
        return step

    def collect(self, step: SubmittedStep) -> list[Outcome]:
        """Wait for the tokens of a step."""
        if step.fetched is not None:
            self._device.wait(step.event)
            self._on_progress()
            tokens = step.fetched.numpy()
            for place in range(step.first, len(step.outcomes)):
                if step.outcomes[place] is None:
                    step.outcomes[place] = drawn(int(tokens[place - step.first]))
            step.fetched = None
        return [outcome for outcome in step.outcomes if outcome is not None]

    def last_logits(self) -> npt.NDArray[np.float32]:
        """The last step's last sampled rows, float32 [rows, vocabulary], before penalties."""
        return self._device.download(self._logits[: self._num_last])

    def _draw(
        self,
        step: SubmittedStep,
        rows: Sequence[int],
        specs: Sequence[SampleSpec],
        requests: Sequence[_native.SampleRequest],
    ) -> None:
        """Compute the logits of these rows, and draw: on the device what its kernels can, the rest on the host."""
        self._num_last = count = len(rows)
        self._inputs.put_drawn(rows)
        bucket, end = self._inputs.bucket, len(self._operations)
        if bucket:
            self._step_graphs.run(bucket, lambda: self._launch(0, end))
        else:
            self._launch(self._first_drawing, end)
        parameters = np.full((count, DRAW_FIELDS), -1, np.int32)
        for_host = []
        for place, spec in enumerate(specs):
            if is_drawable(spec, self.shape.vocabulary):
                parameters[place] = row_parameters(spec, self.shape.vocabulary)
            else:
                for_host.append(place)
        step.first = len(step.outcomes)
        step.outcomes = [*step.outcomes, *([None] * count)]
        if len(for_host) < count:
            self._launch_drawing(parameters)
        if for_host:
            self._draw_on_host(step, for_host, [requests[place] for place in for_host])
        if len(for_host) < count:
            self._fetched.reverse()
            step.fetched = self._fetched[0]
            step.event = self._device.fetch(step.fetched, self._tokens, count)
        self._on_progress()

    def _launch_drawing(self, parameters: npt.NDArray[np.int32]) -> None:
        """Draw on the device by parameters [rows, 16]; rows of -1 are left out."""
        rows, kind = self._inputs.num_drawn, kind_of(parameters)
        self._inputs.put("parameters", parameters, rows)
        if self._inputs.bucket:
            self._draw_graphs.run((rows, kind), lambda: self._drawing.launch(rows, kind))
        else:
            self._drawing.launch(rows, kind)

    def _draw_on_host(
        self, step: SubmittedStep, places: Sequence[int], requests: Sequence[_native.SampleRequest]
    ) -> None:
        logits = np.stack([self._device.download(self._logits[place]) for place in places])
        outcomes = _native.sample_rows(self._host, logits, requests)
        for place, outcome in zip(places, outcomes, strict=True):
            step.outcomes[step.first + place] = outcome
            self._device.fill(self._tokens[place : place + 1], np.array([outcome.token_id], np.int32))

    def _launch(self, begin: int, end: int) -> None:
        for operation in self._operations[begin:end]:
            operation()
            self._on_progress()

    def _rows(self, sampled: bool) -> int:
        return self._inputs.num_drawn if sampled else self._inputs.num_tokens
