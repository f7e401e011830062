"""The native backend: records a model once into a program that C++ replays each step.

Owns the fusions, invisible to the model: a linear product is not recorded when the model asks for it but when its
result is used, because the use decides its form: added to the residual stream it accumulates in place; under silu_mul
gate and up stay in the cache. A norm is recorded with the product that uses it, in the order of the matrix's columns.
The norms and attention write their results already quantized, since every consumer multiplies them. Buffers are shared
between layers; a value that is read after its buffer was written again is a bug, and caught.

This module and `runtime.cpu`, which fills and runs the program, are the only ones that see the compiled one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from antiphon import _native
from antiphon.checkpoint import Tensor
from antiphon.errors import CheckpointError
from antiphon.footprint import MAX_COPIED_EMBEDDING


@dataclass(frozen=True, slots=True)
class NativeMatrix:
    """Weights as one packed matrix or, where a file mixes types, several whose rows follow each other."""

    packed: list[_native.PackedMatrix]
    bias: list[float]
    order: tuple[int, ...] | None = None  # of its columns, which its input must take

    @property
    def rows(self) -> int:
        return sum(packed.rows for packed in self.packed)


@dataclass(frozen=True, slots=True)
class Stored:
    """A value in a buffer of the program."""

    buffer: int
    width: int
    sampled: bool
    quantized: bool
    version: int  # of the buffer's contents


@dataclass(frozen=True, slots=True)
class Normed:
    """A norm of a value that no matrix has multiplied yet: which one does decides the order of its columns."""

    source: Stored
    weight: list[float]


@dataclass(frozen=True, slots=True)
class Product:
    """A linear product that nobody has used yet."""

    source: Stored | Normed
    matrix: NativeMatrix


class NativeLoader:
    """The loading half: packs tensors with the device's threads."""

    def __init__(self, device: _native.Device) -> None:
        self.device = device
        self.bytes_by_format: dict[str, int] = {}
        self.has_mapped_table = False  # an embedding is read from the model's file in each step

    def matrix(self, parts: Sequence[Tensor], bias: Sequence[Tensor] = (), *, interleave: bool = False) -> NativeMatrix:
        if interleave:
            packed = [self._pack(parts, interleave=True)]
        else:
            packed = [self._pack(list(run)) for _, run in groupby(parts, key=lambda part: part.type)]
        orders = {part.column_order for part in parts}
        if len(orders) > 1:
            raise CheckpointError(f"tensor {', '.join(part.name for part in parts)}: their columns differ in order")
        return NativeMatrix(packed, [value for tensor in bias for value in self.vector(tensor)], orders.pop())

    def _pack(self, parts: Sequence[Tensor], *, interleave: bool = False) -> _native.PackedMatrix:
        try:
            packed = self.device.pack([stored_matrix(part) for part in parts], interleave)
        except ValueError as error:
            raise CheckpointError(f"tensor {', '.join(part.name for part in parts)}: {error}") from None
        for part in parts:
            part.release()
        self.bytes_by_format[packed.format] = self.bytes_by_format.get(packed.format, 0) + packed.num_bytes
        return packed

    def vector(self, tensor: Tensor) -> list[float]:
        values = np.empty((1, tensor.num_elements), np.float32)
        stored_matrix(tensor).dequantize(values)
        if not np.isfinite(values).all():
            raise CheckpointError(f"tensor {tensor.name}: holds a value that is not a finite number")
        return [float(value) for value in values[0]]

    def table(self, tensor: Tensor) -> _native.StoredMatrix:
        """The embedding as it is stored: copied if it is small, so that what becomes of the file changes nothing."""
        is_copied = tensor.num_bytes <= MAX_COPIED_EMBEDDING
        self.has_mapped_table |= not is_copied
        data = bytes(tensor.read()) if is_copied else tensor.read()
        stored = stored_matrix(replace(tensor, read=lambda: memoryview(data)))
        try:
            self.device.require_finite(stored)
        except ValueError as error:
            raise CheckpointError(f"tensor {tensor.name}: {error}") from None
        tensor.release()
        return stored


def stored_matrix(tensor: Tensor) -> _native.StoredMatrix:
    """The tensor's bytes as C++ sees them; a vector is a matrix of one row."""
    rows, columns = tensor.shape if len(tensor.shape) == 2 else (1, tensor.num_elements)
    try:
        return _native.StoredMatrix(tensor.read(), tensor.type, rows, columns)
    except ValueError as error:
        raise CheckpointError(f"tensor {tensor.name}: {error}") from None


def quantize(device: _native.Device, tensor: Tensor, type: str) -> memoryview:
    """The tensor's values as blocks of `type`, rounded as well as they can be (native/quantize.h)."""
    try:
        blocks, _, _ = device.quantize(stored_matrix(tensor), type)
    except ValueError as error:
        raise CheckpointError(f"tensor {tensor.name}: {error}") from None
    return blocks.data


class NativeOps(NativeLoader):
    """Records one forward pass into `program`.

    `attended_width` is num_heads * head_dim. `wide_activations`: activations keep about 16 bits instead of 8, for twice
    the multiplications. What the head multiplies is wide even without, for the likeliest tokens: there rounding would
    touch what is drawn.
    """

    def __init__(
        self,
        device: _native.Device,
        program: _native.Program,
        *,
        attended_width: int,
        epsilon: float,
        wide_activations: bool,
    ) -> None:
        super().__init__(device)
        self._program = program
        self._wide_activations = wide_activations
        self._attended_width = attended_width
        self._epsilon = epsilon
        self._buffers: dict[tuple[str, int], int] = {}  # (role, width) → the program's number
        self._versions: dict[tuple[bool, int], int] = {}  # (quantized, buffer) → writes so far

    def embed(self, table: _native.StoredMatrix) -> Stored:
        x = self._write("residual", table.columns)
        self._program.embed(table, x.buffer)
        return x

    def rms_norm(self, x: Stored, weight: list[float]) -> Normed:
        return Normed(x, weight)

    def linear(self, x: Stored | Normed, matrix: NativeMatrix) -> Product:
        return Product(x, matrix)

    def attention(self, qkv: Product, layer: int, qk_norm: tuple[list[float], list[float]] | None = None) -> Stored:
        source = self._multiplied(qkv.source, qkv.matrix)
        projected = self._write("qkv", qkv.matrix.rows)
        self._record(source, qkv.matrix, projected, accumulate=False)
        out = self._write("attended", self._attended_width, quantized=True)
        query_norm, key_norm = qk_norm or ([], [])
        self._program.attention(self._read(projected), layer, out.buffer, query_norm, key_norm, self._epsilon)
        return out

    def silu_mul(self, gate_up: Product) -> Stored:
        (packed,) = gate_up.matrix.packed
        out = self._write("activated", packed.rows // 2, quantized=True)
        self._program.linear_silu_mul(self._multiplied(gate_up.source, gate_up.matrix), packed, out.buffer)
        return out

    def add(self, x: Stored, y: Product) -> Stored:
        self._read(x)
        source = self._multiplied(y.source, y.matrix)
        out = self._write("residual", x.width)
        self._record(source, y.matrix, out, accumulate=True)
        return out

    def sampled_rows(self, x: Stored) -> Stored:
        out = self._write("sampled", x.width, sampled=True)
        self._program.select_rows(self._read(x), out.buffer)
        return out

    def logits(self, x: Stored | Normed, head: NativeMatrix) -> None:
        (packed,) = head.packed
        self._program.logits(self._multiplied(x, head), packed, self._wide_activations)

    def _record(self, source: int, matrix: NativeMatrix, out: Stored, *, accumulate: bool) -> None:
        column = 0
        for packed in matrix.packed:
            end = column + packed.rows
            self._program.linear(source, packed, matrix.bias[column:end], out.buffer, accumulate, column)
            column = end

    def _multiplied(self, value: Stored | Normed, matrix: NativeMatrix) -> int:
        """The buffer of what a matrix multiplies; a norm is recorded here, in the order of the matrix's columns."""
        if isinstance(value, Stored):
            assert matrix.order is None, "only a norm's columns can be put in order"
            return self._read(value)
        x, weight, prefix = value.source, value.weight, "sampled " if value.source.sampled else ""
        if matrix.order is not None:
            ordered = self._write(prefix + "ordered", x.width, sampled=x.sampled)
            self._program.reorder(self._read(x), matrix.order, ordered.buffer)
            x, weight = ordered, [weight[column] for column in matrix.order]
        out = self._write(prefix + "normed", x.width, sampled=x.sampled, quantized=True)
        self._program.rms_norm(self._read(x), weight, self._epsilon, out.buffer)
        return out.buffer

    def _write(self, role: str, width: int, *, sampled: bool = False, quantized: bool = False) -> Stored:
        buffer = self._buffers.get((role, width))
        if buffer is None:
            if quantized:
                parts = 2 if sampled or self._wide_activations else 1
                buffer = self._program.quantized_buffer(width, sampled, parts)
            else:
                buffer = self._program.float_buffer(width, sampled)
            self._buffers[role, width] = buffer
        version = self._versions[quantized, buffer] = self._versions.get((quantized, buffer), 0) + 1
        return Stored(buffer, width, sampled, quantized, version)

    def _read(self, value: Stored) -> int:
        assert self._versions[value.quantized, value.buffer] == value.version, "the buffer was written again since"
        return value.buffer
