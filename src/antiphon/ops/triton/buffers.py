"""The buffers of a recorded model on a GPU, and the sizes that they are made for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from antiphon.ops.triton.device import Tensor


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
    """Layout in `norms`; `capacity` rows in each plane.

    `wide`: products multiply both planes. A buffer of drawn rows that is not wide has its planes apart.
    """

    codes: Tensor
    scales: Tensor
    sums: Tensor
    width: int
    wide: bool
    capacity: int
    sampled: bool

    @property
    def planes(self) -> int:
        return 2 if self.wide or self.sampled else 1

    @property
    def apart(self) -> bool:
        return self.sampled and not self.wide

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
