"""The native backend: records a model once into a program that C++ replays each step.

It owns the fusions, which the model does not see. A linear product is recorded when its result is used, because the use
decides its form: added to the residual stream it accumulates in place; under silu_mul, gate and up stay in the cache. A
norm is recorded with the product that uses it, in the order of the matrix's columns. So each product must be used
exactly once, and each norm at least once; `logits`, the last operation, asserts that none is left over. Norms and
attention write quantized results, since every consumer multiplies them. Layers share buffers; reading a value whose
buffer was written again is a bug, and is asserted too.

A program is the compiled module's or, on a GPU, `ops.triton`'s. Only this module, `ops.native_sampling`, `ops.triton`,
`runtime.cpu`, `runtime.gpu` and `runtime.recorded`, which fill and run the programs, import the compiled one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol, TypeVar

import numpy as np

from antiphon import _native
from antiphon.checkpoint import Tensor
from antiphon.errors import CheckpointError, ConfigError
from antiphon.footprint import MAX_COPIED_EMBEDDING
from antiphon.ops.key_bias import bias_to_leave_out


@dataclass(frozen=True, slots=True)
class NativeMatrix:
    """Weights as one packed matrix or, where a file mixes types, several that follow each other row by row."""

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
    """A norm that is not recorded yet: the matrix that multiplies it decides the order of its columns."""

    source: Stored
    weight: list[float]


@dataclass(frozen=True, slots=True)
class Product:
    """A linear product that is not recorded yet: its use decides its form."""

    source: Stored | Normed
    matrix: NativeMatrix


_Deferred = TypeVar("_Deferred", Normed, Product)


def instruction_sets() -> list[str]:
    """The instruction sets that this process can use, best first."""
    return _native.instruction_sets()


def open_device(instruction_set: str, threads: int, progress: memoryview | None = None) -> _native.Device:
    """Threads and kernels; `progress`: eight writable bytes that grow with every piece of loading done.

    Raises ConfigError for an instruction set that this machine does not have, and for threads that cannot be started.
    """
    counter = np.frombuffer(progress, np.uint64) if progress is not None else None
    try:
        return _native.Device(instruction_set, threads, counter)
    except ValueError as error:
        raise ConfigError(f"--instruction-set: {error}") from None
    except RuntimeError as error:
        raise ConfigError(
            f"--threads {threads}: {error}; use fewer threads, or raise the limits on processes and memory"
        ) from None


def open_roofline(device: _native.Device, num_bytes: int) -> _native.Roofline:
    """What measures the limits of this machine, with a buffer of `num_bytes`."""
    return _native.Roofline(device, num_bytes)


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
    """The tensor's values as blocks of `type` (native/quantize.h)."""
    try:
        blocks, _, _ = device.quantize(stored_matrix(tensor), type)
    except ValueError as error:
        raise CheckpointError(f"tensor {tensor.name}: {error}") from None
    return blocks.data


def _row_energies(matrix: NativeMatrix, begin: int, count: int, factors: list[float]) -> list[float]:
    """The sum of (weight * factor)² of each of the rows [begin, begin + count)."""
    energies: list[float] = []
    for packed in matrix.packed:
        first, last = max(begin, 0), min(begin + count, packed.rows)
        if first < last:
            energies += packed.row_energies(first, last - first, factors)
        begin -= packed.rows
    return energies


def _without_key_bias(matrix: NativeMatrix, begin: int, key_bias: list[float]) -> NativeMatrix:
    """The matrix of q, k and v without a part of its bias, which begins at row `begin`."""
    if not key_bias:
        return matrix
    bias = list(matrix.bias)
    for row, value in enumerate(key_bias, begin):
        if value != 0.0:
            bias[row] = 0.0
    return replace(matrix, bias=bias)


class RecordedProgram(Protocol):
    """What a forward pass is recorded into: `_native.Program`, or `ops.triton.program.Program` on a GPU."""

    @property
    def head_dim(self) -> int: ...

    @property
    def num_kv_heads(self) -> int: ...

    @property
    def has_int8_kv(self) -> bool: ...

    def float_buffer(self, width: int, sampled: bool, /) -> int: ...

    def quantized_buffer(self, width: int, sampled: bool, wide: bool, /) -> int: ...

    def embed(self, table: _native.StoredMatrix, out: int, /) -> None: ...

    def reorder(self, source: int, order: Sequence[int], out: int, /) -> None: ...

    def rms_norm(self, source: int, weight: Sequence[float], epsilon: float, out: int, /) -> None: ...

    def linear(
        self,
        source: int,
        matrix: _native.PackedMatrix,
        bias: Sequence[float],
        out: int,
        accumulate: bool,
        first_column: int,
        /,
    ) -> None: ...

    def linear_silu_mul(self, source: int, matrix: _native.PackedMatrix, out: int, /) -> None: ...

    def attention(
        self,
        qkv: int,
        layer: int,
        out: int,
        query_norm: Sequence[float],
        key_norm: Sequence[float],
        epsilon: float,
        key_bias: Sequence[float],
        /,
    ) -> None: ...

    def select_rows(self, source: int, out: int, /) -> None: ...

    def logits(self, source: int, matrix: _native.PackedMatrix, /) -> None: ...


class NativeOps(NativeLoader):
    """Records one forward pass into `program`.

    `attended_width` is num_heads * head_dim. `wide_activations`: activations keep about 16 bits instead of 8, at the
    cost of twice the multiplications. Without it, the head's input is still wide for the likeliest tokens, where
    rounding would change which token is drawn.
    """

    def __init__(
        self,
        device: _native.Device,
        program: RecordedProgram,
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
        self._unused: list[Normed | Product] = []  # asked for, and not recorded yet

    def embed(self, table: _native.StoredMatrix) -> Stored:
        x = self._write("residual", table.columns)
        self._program.embed(table, x.buffer)
        return x

    def rms_norm(self, x: Stored, weight: list[float]) -> Normed:
        return self._defer(Normed(x, weight))

    def linear(self, x: Stored | Normed, matrix: NativeMatrix) -> Product:
        return self._defer(Product(x, matrix))

    def attention(self, qkv: Product, layer: int, qk_norm: tuple[list[float], list[float]] | None = None) -> Stored:
        source = self._multiplied(self._use(qkv))
        key_bias = self._key_bias_to_leave_out(qkv) if qk_norm is None else []
        projected = self._write("qkv", qkv.matrix.rows)
        self._record(source, _without_key_bias(qkv.matrix, self._attended_width, key_bias), projected, accumulate=False)
        out = self._write("attended", self._attended_width, quantized=True)
        query_norm, key_norm = qk_norm or ([], [])
        self._program.attention(self._read(projected), layer, out.buffer, query_norm, key_norm, self._epsilon, key_bias)
        return out

    def _key_bias_to_leave_out(self, qkv: Product) -> list[float]:
        """What an int8 KV cache leaves out of K's bias, [num_kv_heads * head_dim]; empty where that is nothing.

        The input of the product is expected to be noise of size one times the norm's weights.
        """
        heads, dim = self._program.num_kv_heads, self._program.head_dim
        if not (qkv.matrix.bias and self._program.has_int8_kv):
            return []
        factors = qkv.source.weight if isinstance(qkv.source, Normed) else [1.0] * qkv.source.width
        if qkv.matrix.order is not None:
            factors = [factors[column] for column in qkv.matrix.order]
        begin, count = self._attended_width, heads * dim
        rows = _row_energies(qkv.matrix, begin, count, factors)
        energies = np.array([math.fsum(rows[head * dim : (head + 1) * dim]) for head in range(heads)])
        bias = np.array(qkv.matrix.bias[begin : begin + count]).reshape(heads, dim)
        left_out: list[float] = bias_to_leave_out(bias, energies).reshape(-1).tolist()
        return left_out if any(left_out) else []

    def silu_mul(self, gate_up: Product) -> Stored:
        (packed,) = gate_up.matrix.packed
        out = self._write("activated", packed.rows // 2, quantized=True)
        self._program.linear_silu_mul(self._multiplied(self._use(gate_up)), packed, out.buffer)
        return out

    def add(self, x: Stored, y: Product) -> Stored:
        self._read(x)
        source = self._multiplied(self._use(y))
        out = self._write("residual", x.width)
        self._record(source, y.matrix, out, accumulate=True)
        return out

    def sampled_rows(self, x: Stored) -> Stored:
        out = self._write("sampled", x.width, sampled=True)
        self._program.select_rows(self._read(x), out.buffer)
        return out

    def logits(self, x: Stored | Normed, head: NativeMatrix) -> None:
        (packed,) = head.packed
        self._program.logits(self._multiplied(Product(x, head)), packed)
        assert not self._unused, f"{len(self._unused)} products or norms are never used, so they were not recorded"

    def _defer(self, value: _Deferred) -> _Deferred:
        self._unused.append(value)
        return value

    def _use(self, product: Product) -> Product:
        """A product that is about to be recorded; asserts that it was not recorded before."""
        assert any(unused is product for unused in self._unused), "a product is used twice; it would be computed twice"
        self._forget(product)
        return product

    def _forget(self, value: Normed | Product) -> None:
        self._unused = [unused for unused in self._unused if unused is not value]

    def _record(self, source: int, matrix: NativeMatrix, out: Stored, *, accumulate: bool) -> None:
        column = 0
        for packed in matrix.packed:
            end = column + packed.rows
            self._program.linear(source, packed, matrix.bias[column:end], out.buffer, accumulate, column)
            column = end

    def _multiplied(self, product: Product) -> int:
        """The buffer that the product's matrix multiplies; a norm is recorded here, in the order of its columns."""
        value, matrix = product.source, product.matrix
        if isinstance(value, Stored):
            assert matrix.order is None, "only a norm's columns can be put in order"
            return self._read(value)
        self._forget(value)
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
                buffer = self._program.quantized_buffer(width, sampled, self._wide_activations)
            else:
                buffer = self._program.float_buffer(width, sampled)
            self._buffers[role, width] = buffer
        version = self._versions[quantized, buffer] = self._versions.get((quantized, buffer), 0) + 1
        return Stored(buffer, width, sampled, quantized, version)

    def _read(self, value: Stored) -> int:
        assert self._versions[value.quantized, value.buffer] == value.version, "the buffer was written again since"
        return value.buffer
