"""Computes what a model takes of a GPU's memory: weights in the kernels' layout, step buffers, the driver's context.

The sizes are those that `ops.triton` allocates; tests compare the two byte by byte. This module needs neither a GPU nor
PyTorch, so that `inspect` can plan for a GPU that is elsewhere. It reads the sizes of tensors and no weights. All sizes
are in bytes unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, cast

from antiphon.checkpoint import Checkpoint, Tensor
from antiphon.config import EngineConfig
from antiphon.footprint import (
    CHANNEL_ALIGNMENT,
    CORRECTED_PANELS,
    DRAW_FIELDS,
    KV_BLOCK_SIZE,
    RESERVE_SHARE,
    ROW_ALIGNMENT,
    RUN_TOKENS,
    SPLIT_FLOATS,
    W4_BITS,
    W8_BITS,
)
from antiphon.models.dense import load_weights
from antiphon.models.spec import ModelSpec
from antiphon.quantization import wide_activations

if TYPE_CHECKING:
    from antiphon.ops.base import Ops

# What CUDA's context, PyTorch's kernels and the compiled Triton modules take on the device. An estimate: NVIDIA's
# drivers take 300 to 500 MiB a process.
CONTEXT_BYTES = 512 << 20
# Main memory of an engine on a GPU, beside the embedding: Python, PyTorch and CUDA's host side. An estimate.
HOST_BYTES = 2 << 30

FLOAT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_GROUP = 32  # weights or activations that share a scale
_STATE_SUMS = 16  # partial sums of a row's softmax
_ITEM_FIELDS = 8  # int32 numbers of an attention work item


@dataclass(frozen=True, slots=True)
class GpuFootprint:
    """What one engine takes on its device, beside the KV cache."""

    w4: int  # matrices
    w8: int
    vectors: int  # norms, biases and orders of columns
    key_bias: int  # at most: the part of K's biases that is not in the KV cache, and its terms in a step
    table: int  # at most: the embedding on the device
    embedding: int  # main memory, while it is loaded: copied there, or mapped from the file
    shape: StepShape

    @property
    def weights(self) -> int:
        """Everything of the model that stays on the device."""
        return self.w4 + self.w8 + self.vectors + self.key_bias + self.table

    def step(self, context_length: int) -> int:
        """The buffers of a step, where sequences have at most `context_length` tokens."""
        return self.shape.buffers() + self.shape.inputs(context_length) + self.shape.angles(context_length)

    def engine(self, context_length: int) -> int:
        """Everything but the KV cache."""
        return self.weights + self.step(context_length) + CONTEXT_BYTES

    def kv_capacity(self, memory: int, context_length: int, per_token: int) -> int:
        """Tokens of a KV cache in whole blocks that fit a device of `memory`, beside everything else and a reserve."""
        room = int(memory * (1 - RESERVE_SHARE)) - self.engine(context_length)
        return max(0, room // per_token // KV_BLOCK_SIZE * KV_BLOCK_SIZE)


@dataclass(frozen=True, slots=True)
class StepShape:
    """The numbers that decide the sizes of a step's buffers; see `ops.triton.program`."""

    max_tokens: int
    max_sequences: int
    spec: ModelSpec
    wide: bool  # quantized activations have two planes: int16, not int8
    is_reordered: bool  # some matrices take their input's columns in another order

    @classmethod
    def of(cls, config: EngineConfig, spec: ModelSpec, checkpoint: Checkpoint) -> StepShape:
        return cls(
            max_tokens=max(config.max_batch_tokens, config.max_num_sequences),
            max_sequences=config.max_num_sequences,
            spec=spec,
            wide=wide_activations(config, checkpoint),
            is_reordered=any(tensor.column_order is not None for tensor in checkpoint.tensors.values()),
        )

    def buffers(self) -> int:
        """What does not depend on the context: activations, attention's states, logits."""
        return self._activations() + self._attention() + self._head()

    def _activations(self) -> int:
        spec = self.spec
        rows, sampled = aligned(self.max_tokens, ROW_ALIGNMENT), aligned(self.max_sequences, ROW_ALIGNMENT)
        attended = spec.num_heads * spec.head_dim
        qkv = attended + 2 * spec.num_kv_heads * spec.head_dim
        floats = spec.hidden_size * (1 + self.is_reordered) + qkv
        quantized = spec.hidden_size + attended + spec.intermediate_size
        planes = 2 if self.wide else 1
        drawn = 4 * spec.hidden_size + _quantized(spec.hidden_size, 2, 1 if self.wide else 2)
        return rows * (4 * floats + _quantized(quantized, planes, 1)) + sampled * drawn

    def _attention(self) -> int:
        spec = self.spec
        queries = self.max_tokens * spec.num_heads
        states = self.max_tokens * (spec.num_heads // spec.num_kv_heads) + self.split_rows
        state = 4 * (spec.head_dim + _STATE_SUMS + 1)
        return queries * (2 * spec.head_dim + 4 * (spec.head_dim // _GROUP)) + states * spec.num_kv_heads * state

    @property
    def split_rows(self) -> int:
        """Rows of attention's states for sequences whose segments are computed apart."""
        spec = self.spec
        return SPLIT_FLOATS // (spec.num_kv_heads * (spec.head_dim + _STATE_SUMS + 1))

    def _head(self) -> int:
        maxima = -(-self.spec.vocab_size // CHANNEL_ALIGNMENT) * 2
        logits = self.max_sequences * 4 * (self.spec.vocab_size + maxima + CORRECTED_PANELS)
        return logits + self._drawing()

    def _drawing(self) -> int:
        """Weights of every token; five numbers and two times four sums of a run of them; and a few of a row."""
        runs = -(-self.spec.vocab_size // RUN_TOKENS)
        return self.max_sequences * 4 * (self.spec.vocab_size + (5 + 8) * runs + 4 + 1 + 1)

    def angles(self, context_length: int) -> int:
        """Cosines and sines of every position, float32."""
        return 2 * context_length * (self.spec.head_dim // 2) * 4

    def inputs(self, context_length: int) -> int:
        """Tokens, positions, block tables, attention's work items and what to draw, of the largest step."""
        items = self.max_tokens + self.split_rows // (self.spec.num_heads // self.spec.num_kv_heads)
        tables = -(-context_length // KV_BLOCK_SIZE)
        of_tokens = self.max_tokens * (3 + _ITEM_FIELDS + 4)
        return 4 * (of_tokens + items * _ITEM_FIELDS + self.max_sequences * (tables + 1 + DRAW_FIELDS))

    def key_bias(self, widths: Sequence[int]) -> int:
        """The part of K's biases that is not in the KV cache: in each layer so many pairs of dimensions a head."""
        spec = self.spec
        of_a_pair = 3 * 4 + 2 * 4 * KV_BLOCK_SIZE  # its number, its bias, and its angles in a block
        tables = sum(spec.num_kv_heads * (width * of_a_pair + 4) for width in widths if width)
        return tables + self.max_tokens * spec.num_heads * 2 * max(widths) * 4


def gpu_footprint(checkpoint: Checkpoint, config: EngineConfig) -> GpuFootprint:
    """The footprint of a checkpoint whose float matrices have the precision in which they are served.

    Raises CheckpointError, naming it, for a tensor or a setting with which the model cannot be served.
    """
    spec = ModelSpec.from_checkpoint(checkpoint)
    shape = StepShape.of(config, spec, checkpoint)
    sizes = _Sizes()
    load_weights(cast("Ops", sizes), checkpoint, spec)
    most_pairs = next_power_of_two(spec.head_dim // 2) if sizes.has_bias and not spec.has_qk_norm else 0
    return GpuFootprint(
        w4=sizes.w4,
        w8=sizes.w8,
        vectors=sizes.vectors,
        key_bias=shape.key_bias([most_pairs] * spec.num_layers),
        table=sizes.table_bytes,
        embedding=sizes.embedding,
        shape=shape,
    )


class _Sizes:
    """Takes weights as `ops.native.NativeLoader` and `ops.triton.layouts` do, and adds up what they take."""

    def __init__(self) -> None:
        self.w4 = self.w8 = self.vectors = self.table_bytes = self.embedding = 0
        self.has_bias = False

    def matrix(self, parts: Sequence[Tensor], bias: Sequence[Tensor] = (), *, interleave: bool = False) -> None:
        runs = [list(parts)] if interleave else [list(run) for _, run in groupby(parts, key=lambda part: part.type)]
        for run in runs:
            channels = self._packed(run)
            self.vectors += 4 * channels if bias else 0
        if parts[0].column_order is not None:
            self.vectors += 4 * parts[0].shape[1]
        self.has_bias |= bool(bias)

    def _packed(self, parts: Sequence[Tensor]) -> int:
        """Count a matrix of these parts; returns its padded number of channels."""
        channels = aligned(sum(part.shape[0] for part in parts), CHANNEL_ALIGNMENT)
        groups = channels * parts[0].shape[1] // _GROUP
        is_w4 = all(part.type in W4_BITS for part in parts)
        has_mins = any(W4_BITS.get(part.type) == 5.0 or part.type in W8_BITS for part in parts)
        halves = 2 if has_mins else 1  # a float16 scale, and a minimum
        if is_w4:
            self.w4 += groups * (_GROUP // 2 + 2 * halves)
        else:
            self.w8 += groups * (_GROUP + 2 * halves)
        return channels

    def vector(self, tensor: Tensor) -> None:
        self.vectors += 4 * tensor.num_elements

    def table(self, tensor: Tensor) -> None:
        self.embedding += tensor.num_bytes
        self.table_bytes += _table_bytes(tensor)


def _table_bytes(tensor: Tensor) -> int:
    """An embedding on the device (`ops.triton.tables`): codes, and a scale and perhaps a minimum a group; or floats."""
    if tensor.type in FLOAT_BYTES:
        return tensor.num_elements * FLOAT_BYTES[tensor.type]
    halves = 2 if W4_BITS.get(tensor.type) == 5.0 or tensor.type in W8_BITS else 1
    group = _GROUP // 2 if tensor.type == "Q6_K" else _GROUP
    return tensor.num_elements + tensor.num_elements // group * 4 * halves


def default_gpu_tokens(capacity: int, config: EngineConfig, context_length: int) -> int:
    """The default size of a GPU's KV cache in tokens: what fits, but no more than all sequences can use."""
    most = config.max_num_sequences * aligned(context_length, KV_BLOCK_SIZE)
    return min(capacity, most) // KV_BLOCK_SIZE * KV_BLOCK_SIZE


def _quantized(width: int, planes: int, sums: int) -> int:
    """A row of quantized activations: int8 codes in `planes` planes; for each group a float32 scale and int32 sums."""
    return planes * width + width // _GROUP * (4 + 4 * sums)


def aligned(count: int, alignment: int) -> int:
    """`count`, rounded up to a multiple of `alignment`."""
    return -(-count // alignment) * alignment


def next_power_of_two(n: int) -> int:
    """The least power of two that is not below `n`."""
    return 1 << max(n - 1, 0).bit_length()
