"""Float weights in 4 or 8 bits: which of the two, and a checkpoint as if it had been stored so. A leaf.

A checkpoint whose matrices are floats is quantized while it is loaded. In 8 bits the packed form rounds by itself; in 4
bits each matrix appears as Q4_1, made when it is read, so that nothing else need know. The output matrix always has 8
bits (its error is the error of the logits), and so has the embedding where it serves as output matrix too; what a
checkpoint stores quantized stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from antiphon.checkpoint import Checkpoint, Tensor
from antiphon.footprint import EMBEDDINGS, HEADS, kv_bytes_per_token, kv_capacity, weight_bytes

FLOATS = ("F32", "F16", "BF16")
W4_TYPE = "Q4_1"
# Room for conversations that 8 bits must leave to be chosen unasked: 32 users of 1,024 tokens.
ENOUGH_TOKENS = 32 * 1024

Quantize = Callable[[Tensor, str], memoryview]  # a tensor's blocks of a type


def unread(tensor: Tensor, type: str) -> memoryview:
    """In place of a quantizer, where only sizes are needed."""
    raise AssertionError(f"{tensor.name} was not to be read as {type}")


@dataclass(frozen=True, slots=True)
class Quantization:
    name: str  # "w4" or "w8"; empty where there is nothing to choose
    reason: str  # a clause for people


def choose_quantization(
    wish: str, checkpoint: Checkpoint, free: int, kv_cache_type: str, kv_tokens: int = 0
) -> Quantization:
    """Choose by the setting `wish` ("w4", "w8" or "auto"), in `free` bytes of memory beside a KV cache of `kv_tokens`.

    "auto": 8 bits, whose answers are nearly those of the floats, where they leave room for conversations; else 4.
    """
    if not any(is_quantizable(tensor) for tensor in checkpoint.tensors.values()):
        return Quantization("", "the checkpoint's weights are quantized already")
    if wish != "auto":
        return Quantization(wish, "as asked")
    wanted = kv_tokens or ENOUGH_TOKENS
    tied = bool(checkpoint.settings.get("tie_word_embeddings"))
    weights = weight_bytes(checkpoint.tensors.values(), tied=tied)
    room = kv_capacity(free, weights, kv_bytes_per_token(checkpoint.settings, kv_cache_type))
    if room >= wanted:
        return Quantization("w8", f"8 bits leave room for {room:,} tokens")
    return Quantization("w4", f"8 bits would leave room for {room:,} tokens, fewer than {wanted:,}")


def as_quantized(checkpoint: Checkpoint, name: str, quantize: Quantize = unread) -> Checkpoint:
    """The checkpoint with its float matrices in the form of `name`; `quantize` makes the blocks when they are read."""
    if name != "w4":
        return checkpoint
    tensors: Mapping[str, Tensor] = {
        key: _retyped(tensor, quantize) if is_quantizable(tensor) else tensor
        for key, tensor in checkpoint.tensors.items()
    }
    return replace(checkpoint, tensors=tensors)


def is_quantizable(tensor: Tensor) -> bool:
    """Whether it is a float matrix between the embedding and the head."""
    return tensor.type in FLOATS and len(tensor.shape) == 2 and tensor.name not in (*EMBEDDINGS, *HEADS)


def _retyped(tensor: Tensor, quantize: Quantize) -> Tensor:
    return replace(tensor, type=W4_TYPE, read=lambda: quantize(tensor, W4_TYPE))
