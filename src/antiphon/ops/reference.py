"""The reference backend: the operations in NumPy float32, as plainly as they can be said; others are tested against it.

Owns its own weights in float32, read by `reference_types`, and its own KV cache, so that it shares no mistake with the
compiled kernels. It computes a step's plan at once, sequence by sequence, and makes no promise of speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from antiphon.checkpoint import Tensor, block_of
from antiphon.errors import CheckpointError
from antiphon.ops.reference_types import VALUES_OF, Array
from antiphon.step import ScheduledSequence, StepPlan


def dequantize(tensor: Tensor) -> Array:
    """The tensor's values, float32 of its shape, columns in order.

    Raises CheckpointError, naming the tensor, where a value is not a finite number.
    """
    raw = np.frombuffer(tensor.read(), np.uint8)
    blocks = raw.reshape(-1, block_of(tensor.type)[0])  # [blocks, bytes a block]
    with np.errstate(invalid="ignore", over="ignore"):  # said below, by name
        values = VALUES_OF[tensor.type](blocks).astype(np.float32).reshape(tensor.shape)
    if not np.isfinite(values).all():
        raise CheckpointError(f"tensor {tensor.name}: holds a weight or a scale that is not a finite number")
    if tensor.column_order is not None:
        values = values[:, np.argsort(tensor.column_order)]
    return values


class Weights(Protocol):
    """What a product needs of a matrix."""

    @property
    def weights(self) -> Array: ...  # [rows, columns]

    @property
    def bias(self) -> Array | None: ...  # [rows]


class Rows(Protocol):
    """What an embedding needs of a table."""

    def __getitem__(self, token_ids: list[int], /) -> Array: ...  # [tokens, columns]


@dataclass(frozen=True, slots=True)
class ReferenceMatrix:
    weights: Array  # [rows, columns]
    bias: Array | None  # [rows]


class ReferenceOps:
    """Computes the operations on the plan given to `begin`.

    `rope_frequencies`: radians a position, [head_dim / 2]; `rope_attention_factor` multiplies what they turn. The cache
    holds `num_blocks` blocks of `block_size` tokens.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_heads: int,
        num_kv_heads: int,
        rope_frequencies: Sequence[float],
        rope_attention_factor: float = 1.0,
        epsilon: float,
        num_blocks: int,
        block_size: int,
    ) -> None:
        self._num_heads, self._num_kv_heads = num_heads, num_kv_heads
        self._head_dim = 2 * len(rope_frequencies)
        self._frequencies = np.array(rope_frequencies, np.float64)
        self._attention_factor = rope_attention_factor
        self._epsilon = np.float32(epsilon)
        self._block_size = block_size
        self._cache: Array = np.zeros(  # K and V
            (num_layers, 2, num_blocks, block_size, num_kv_heads, self._head_dim), np.float32
        )
        self._plan = StepPlan([])

    def begin(self, plan: StepPlan) -> None:
        """Make `plan` the step that the operations compute."""
        self._plan = plan

    # Loading.

    def matrix(self, parts: Sequence[Tensor], bias: Sequence[Tensor] = (), *, interleave: bool = False) -> Weights:
        """`interleave` changes nothing here: gate and up stay whole, one after the other."""
        weights = np.concatenate([dequantize(part) for part in parts])
        return ReferenceMatrix(weights, np.concatenate([self.vector(tensor) for tensor in bias]) if bias else None)

    def vector(self, tensor: Tensor) -> Array:
        return dequantize(tensor).reshape(-1)

    def table(self, tensor: Tensor) -> Rows:
        return dequantize(tensor)

    # Running.

    def embed(self, table: Rows) -> Array:
        rows: Array = table[[token_id for sequence in self._plan.sequences for token_id in sequence.token_ids]]
        return rows

    def rms_norm(self, x: Array, weight: Array) -> Array:
        normed: Array = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self._epsilon) * weight
        return normed

    def linear(self, x: Array, matrix: Weights) -> Array:
        product: Array = x @ matrix.weights.T
        return product if matrix.bias is None else product + matrix.bias

    def attention(self, qkv: Array, layer: int, qk_norm: tuple[Array, Array] | None = None) -> Array:
        """qkv: [tokens, (heads + 2 kv_heads) * head_dim] → [tokens, heads * head_dim]."""
        outputs, row = [], 0
        for sequence in self._plan.sequences:
            rows = qkv[row : row + len(sequence.token_ids)].reshape(len(sequence.token_ids), -1, self._head_dim)
            outputs.append(self._attend(sequence, self._normed_heads(rows, qk_norm), layer))
            row += len(sequence.token_ids)
        return np.concatenate(outputs)

    def silu_mul(self, gate_up: Array) -> Array:
        gate, up = np.split(gate_up, 2, axis=1)
        activated: Array = gate / (1 + np.exp(-gate)) * up
        return activated

    def add(self, x: Array, y: Array) -> Array:
        return x + y

    def sampled_rows(self, x: Array) -> Array:
        ends = np.cumsum([len(sequence.token_ids) for sequence in self._plan.sequences])
        counts = [len(sequence.samples) for sequence in self._plan.sequences]
        rows: Array = x[[row for end, count in zip(ends, counts, strict=True) for row in range(end - count, end)]]
        return rows

    def logits(self, x: Array, head: Weights) -> Array:
        return self.linear(x, head)

    def _normed_heads(self, rows: Array, qk_norm: tuple[Array, Array] | None) -> Array:
        """rows: [tokens, heads + 2 kv_heads, head_dim]; V stays as it is."""
        if qk_norm is None:
            return rows
        q, k, v = np.split(rows, [self._num_heads, self._num_heads + self._num_kv_heads], axis=1)
        return np.concatenate([self.rms_norm(q, qk_norm[0]), self.rms_norm(k, qk_norm[1]), v], axis=1)

    def _attend(self, sequence: ScheduledSequence, rows: Array, layer: int) -> Array:
        """rows: [tokens, heads + 2 kv_heads, head_dim] of one sequence → [tokens, heads * head_dim]."""
        positions = sequence.num_computed_tokens + np.arange(len(rows))
        q, k, v = np.split(rows, [self._num_heads, self._num_heads + self._num_kv_heads], axis=1)
        blocks = np.array(sequence.block_table)[positions // self._block_size]
        self._cache[layer, :, blocks, positions % self._block_size] = np.stack([self._rotated(k, positions), v], axis=1)
        group = self._num_heads // self._num_kv_heads
        keys, values = self._cached(layer, sequence, group)
        queries = self._rotated(q, positions).swapaxes(0, 1)  # [heads, tokens, head_dim]
        scores = queries @ keys.transpose(1, 2, 0) / np.sqrt(np.float32(self._head_dim))  # [heads, tokens, positions]
        future = np.arange(len(keys)) > positions[:, None]  # [tokens, positions]
        scores = np.where(future, -np.inf, scores)
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        attended: Array = (weights @ values.swapaxes(0, 1)).swapaxes(0, 1).reshape(len(rows), -1)
        return attended

    def _cached(self, layer: int, sequence: ScheduledSequence, group: int) -> tuple[Array, Array]:
        """K and V of every position so far, each [positions, heads, head_dim]: every KV head `group` times."""
        end = sequence.num_computed_tokens + len(sequence.token_ids)
        paged = self._cache[layer][:, sequence.block_table]  # [2, blocks, block_size, kv_heads, head_dim]
        whole = paged.reshape(2, -1, self._num_kv_heads, self._head_dim)[:, :end]
        keys, values = np.repeat(whole, group, axis=2)
        return keys, values

    def _rotated(self, heads: Array, positions: npt.NDArray[np.int64]) -> Array:
        """Rotary positions (Su et al., RoFormer, 2021), dimension i turning together with i + head_dim / 2."""
        angles = positions[:, None, None] * self._frequencies  # [tokens, 1, head_dim / 2]
        cosines = (np.cos(angles) * self._attention_factor).astype(np.float32)
        sines = (np.sin(angles) * self._attention_factor).astype(np.float32)
        first, second = np.split(heads, 2, axis=2)
        return np.concatenate([first * cosines - second * sines, second * cosines + first * sines], axis=2)
