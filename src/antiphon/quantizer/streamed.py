"""A model in float32 that holds only one matrix at a time: each is read when it is needed and then released.

It is the reference backend, run on whole windows of a text at a time, so that a matrix is read once for all tokens.
This is slow for one token and cheap for thousands, which is what measuring a model needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from antiphon.checkpoint import Checkpoint, Tensor
from antiphon.models.dense import forward, load_weights
from antiphon.models.spec import ModelSpec
from antiphon.ops.reference import ReferenceOps, Rows, Weights, dequantize
from antiphon.ops.reference_types import Array
from antiphon.step import ScheduledSequence, StepPlan

Observer = Callable[[str, Array], None]  # called with a matrix's name and its input, [tokens, columns]


@dataclass(frozen=True, slots=True)
class StreamedMatrix:
    """Implements `Weights`; reads them each time."""

    parts: Sequence[Tensor]
    bias: Array | None

    @property
    def weights(self) -> Array:
        values = [dequantize(part) for part in self.parts]
        for part in self.parts:
            part.release()
        return values[0] if len(values) == 1 else np.concatenate(values)


@dataclass(frozen=True, slots=True)
class StreamedRows:
    """Implements `Rows`; reads only the requested ones."""

    table: Tensor

    def __getitem__(self, token_ids: list[int], /) -> Array:
        rows, columns = self.table.shape
        row_bytes = self.table.num_bytes // rows
        data = self.table.read()
        chosen = b"".join(data[id * row_bytes : (id + 1) * row_bytes] for id in token_ids)
        return dequantize(
            Tensor(self.table.name, (len(token_ids), columns), self.table.type, lambda: memoryview(chosen))
        )


class StreamedOps(ReferenceOps):
    """The reference backend on such weights, with logits for every row; `observe` is called for each product."""

    observe: Observer = staticmethod(lambda name, x: None)

    def matrix(self, parts: Sequence[Tensor], bias: Sequence[Tensor] = (), *, interleave: bool = False) -> Weights:
        return StreamedMatrix(parts, np.concatenate([self.vector(tensor) for tensor in bias]) if bias else None)

    def table(self, tensor: Tensor) -> Rows:
        return StreamedRows(tensor)

    def linear(self, x: Array, matrix: Weights) -> Array:
        assert isinstance(matrix, StreamedMatrix)
        for part in matrix.parts:
            self.observe(part.name, x)
        return super().linear(x, matrix)

    def sampled_rows(self, x: Array) -> Array:
        return x


def compute(checkpoint: Checkpoint, windows: Sequence[Sequence[int]], observe: Observer | None = None) -> Array:
    """Logits of every token of every window, float32 [tokens, vocabulary]; each window is a sequence of its own."""
    spec = ModelSpec.from_checkpoint(checkpoint)
    ops = StreamedOps(
        num_layers=spec.num_layers,
        num_heads=spec.num_heads,
        num_kv_heads=spec.num_kv_heads,
        rope_frequencies=spec.rope_frequencies(spec.context_length),
        rope_attention_factor=spec.rope_attention_factor,
        epsilon=spec.rms_norm_eps,
        num_blocks=len(windows),
        block_size=max(map(len, windows)),
    )
    if observe is not None:
        ops.observe = observe
    sequences = [ScheduledSequence(n, list(window), 0, [n]) for n, window in enumerate(windows)]
    ops.begin(StepPlan(sequences))
    logits: Array = forward(ops, load_weights(ops, checkpoint, spec))
    return logits
