"""Chooses 4 or 8 bits for float weights, and presents a checkpoint as if it were stored that way. A leaf.

Float matrices of a checkpoint are quantized while they are loaded. For 8 bits, packing rounds them. For 4 bits, each
matrix appears as Q4_1 and is quantized when it is read, so no other code has to handle this case. The output matrix
always has 8 bits, because its error is the error of the logits. So does the embedding if it is also the output matrix.
Matrices that are stored quantized are not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from antiphon.checkpoint import Checkpoint, Tensor
from antiphon.config import EngineConfig
from antiphon.footprint import EMBEDDINGS, HEADS, kv_bytes_per_token, kv_capacity, weight_bytes

FLOATS = ("F32", "F16", "BF16")
W4_TYPE = "Q4_1"
# "auto" only chooses 8 bits if they leave room for this many tokens: 32 users with 1,024 tokens each.
ENOUGH_TOKENS = 32 * 1024
SMALL_MODEL = 500_000_000  # weights

Quantize = Callable[[Tensor, str], memoryview]  # returns the tensor's blocks in the given type


def unread(tensor: Tensor, type: str) -> memoryview:
    """Replaces a quantizer where only sizes are needed."""
    raise AssertionError(f"{tensor.name} must not be read as {type} here")


@dataclass(frozen=True, slots=True)
class Quantization:
    name: str  # "w4" or "w8"; empty if there are no float weights
    reason: str  # for display


def choose_quantization(
    requested: str,
    checkpoint: Checkpoint,
    free: int,
    kv_cache_type: str,
    kv_tokens: int = 0,
    room_beside: Callable[[Checkpoint], int] | None = None,
) -> Quantization:
    """Choose the precision by the setting `requested` ("w4", "w8" or "auto").

    "auto" chooses 8 bits, whose answers are nearly those of the floats, if `free` bytes of memory then have room for a
    KV cache of `kv_tokens` (0: a default). Otherwise it chooses 4 bits. `room_beside` computes the room for a KV cache
    in tokens on a device with a memory of its own.
    """
    if not any(is_quantizable(tensor) for tensor in checkpoint.tensors.values()):
        return Quantization("", "the checkpoint's weights are quantized already")
    if requested != "auto":
        return Quantization(requested, "as asked")
    wanted = kv_tokens or ENOUGH_TOKENS
    if room_beside is not None:
        room = room_beside(checkpoint)
    else:
        tied = bool(checkpoint.settings.get("tie_word_embeddings"))
        weights = weight_bytes(checkpoint.tensors.values(), tied=tied)
        room = kv_capacity(free, weights, kv_bytes_per_token(checkpoint.settings, kv_cache_type))
    if room >= wanted:
        return Quantization("w8", f"8 bits leave room for {room:,} tokens")
    return Quantization("w4", f"8 bits would leave room for {room:,} tokens, fewer than {wanted:,}")


def as_quantized(checkpoint: Checkpoint, name: str, quantize: Quantize = unread) -> Checkpoint:
    """The checkpoint with its float matrices in precision `name`; `quantize` is called when a matrix is read."""
    if name != "w4":
        return checkpoint
    tensors: Mapping[str, Tensor] = {
        key: _retyped(tensor, quantize) if is_quantizable(tensor) else tensor
        for key, tensor in checkpoint.tensors.items()
    }
    return replace(checkpoint, tensors=tensors)


def is_quantizable(tensor: Tensor) -> bool:
    """Whether it is a float matrix other than the embedding and the head."""
    return tensor.type in FLOATS and len(tensor.shape) == 2 and tensor.name not in (*EMBEDDINGS, *HEADS)


def wide_activations(config: EngineConfig, checkpoint: Checkpoint) -> bool:
    """Whether activations keep 16 bits instead of 8.

    Small models have multiplications to spare and suffer most from rounding (docs/decisions/002-activations.md).
    """
    if config.activations != "auto":
        return config.activations == "int16"
    return sum(tensor.num_elements for tensor in checkpoint.tensors.values()) < SMALL_MODEL


def _retyped(tensor: Tensor, quantize: Quantize) -> Tensor:
    return replace(tensor, type=W4_TYPE, read=lambda: quantize(tensor, W4_TYPE))
