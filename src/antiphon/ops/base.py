"""The operations a model is written in. A model sees only this; a backend is one implementation of it.

Handles (`Matrix`, `Vector`, `Table`, `Value`) are whatever the backend makes them: arrays, packed weights, promises of
a recorded program. A model passes them on and never looks inside, so it has no shapes and no devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from antiphon.checkpoint import Tensor

Matrix: TypeAlias = Any  # weights [rows, columns], with an optional bias [rows]
Vector: TypeAlias = Any  # weights [columns]
Table: TypeAlias = Any  # embeddings [vocabulary, columns]
Value: TypeAlias = Any  # activations [tokens, width]


class Ops(Protocol):
    """About ten operations, enough for a decoder of the Llama family."""

    # Loading.

    def matrix(self, parts: Sequence[Tensor], bias: Sequence[Tensor] = (), *, interleave: bool = False) -> Matrix:
        """Weights of the parts, rows one after the other; `interleave`: a gate and an up part for `silu_mul`."""
        ...

    def vector(self, tensor: Tensor) -> Vector:
        """A norm's weights."""
        ...

    def table(self, tensor: Tensor) -> Table:
        """An embedding table."""
        ...

    # Running, or recording what is to run.

    def embed(self, table: Table) -> Value:
        """The step's tokens as rows of the table."""
        ...

    def rms_norm(self, x: Value, weight: Vector) -> Value:
        """x / sqrt(mean(x²) + epsilon) * weight, row by row."""
        ...

    def linear(self, x: Value, matrix: Matrix) -> Value:
        """x · matrixᵀ + bias."""
        ...

    def attention(self, qkv: Value, layer: int, qk_norm: tuple[Vector, Vector] | None = None) -> Value:
        """Rotary positions on Q and K, K and V into the cache of `layer`, causal attention over it.

        `qk_norm`: weights [head_dim] with which every query head and every key head is first normed, as by `rms_norm`.
        """
        ...

    def silu_mul(self, gate_up: Value) -> Value:
        """silu(gate) * up of an interleaved matrix's output."""
        ...

    def add(self, x: Value, y: Value) -> Value:
        """x + y; x is not used again."""
        ...

    def sampled_rows(self, x: Value) -> Value:
        """The rows after which a token is drawn."""
        ...

    def logits(self, x: Value, head: Matrix) -> Value:
        """Scores of every token of the vocabulary."""
        ...
