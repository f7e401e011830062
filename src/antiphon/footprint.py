"""Computes how much memory a model needs and how many users fit. A leaf.

Owns the sizes of our internal formats, which `memory_plan` uses. The functions take numbers or a checkpoint's settings
(with Hugging Face's names) and read no weights. All sizes are in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from antiphon.checkpoint import Tensor

# Bits per packed weight: a group of 32 has 4- or 8-bit codes, a float16 scale and, for types with minima, a minimum.
W4_BITS = {"Q4_0": 4.5, "Q4_1": 5.0, "Q4_ZP": 5.0, "Q4_K": 5.0}
W8_BITS = {"Q5_1": 9.0, "Q5_K": 9.0}
W8_BITS_OF_OTHERS = 8.5

KV_SCALE_GROUP = 32  # int8 values of a key that share one float16 scale
KV_BLOCK_SIZE = 32  # tokens; a user's last block is half empty on average

# The Python processes (front, engine, templates) with their libraries, step buffers, logits and indexes of drafts.
PROCESS_BYTES = 256 << 20
# 64 users of 2,000 tokens.
CROWD_TOKENS = 64 * 2048
# The share of free memory that is left for other processes when the KV pool is sized.
RESERVE_SHARE = 0.1

# On a GPU, for the kernels of `ops.triton`.
CHANNEL_ALIGNMENT = 64  # output channels of a matrix are padded to pairs of panels of 32
ROW_ALIGNMENT = 128  # rows of an activation buffer are padded to whole tiles of tokens
RUN_TOKENS = 1024  # logits whose sums are kept where a token is drawn
DRAW_FIELDS = 16  # int32 numbers that say how a row's token is drawn
SPLIT_FLOATS = 16 << 20  # attention's states, for sequences whose segments are computed apart
CORRECTED_PANELS = 64  # of a row's logits, in the head's second pass

# An embedding of up to this many bytes is copied out of the file. A larger one stays in the file: most of its rows are
# never read, and the page cache keeps the others.
MAX_COPIED_EMBEDDING = 256 << 20

EMBEDDINGS = ("token_embd.weight", "model.embed_tokens.weight")
HEADS = ("output.weight", "lm_head.weight")


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """The sizes of a loaded model's parts."""

    w4: int  # packed matrices
    w8: int
    vectors: int  # norms and biases, float32
    embedding: int  # copied as it is stored
    mapped_embedding: int  # stays in the file: page cache, which the system can reclaim

    @property
    def resident(self) -> int:
        """The memory that stays allocated."""
        return self.w4 + self.w8 + self.vectors + self.embedding


def weight_bytes(tensors: Iterable[Tensor], *, tied: bool) -> WeightBytes:
    """The sizes of a checkpoint's tensors when they are loaded.

    Matrices are packed as W4 (from types with 4-bit codes) or W8 (from all others). The embedding keeps its type and is
    copied if it is small. A `tied` embedding is also the output matrix and is packed as well.
    """
    w4 = w8 = vectors = embedding = mapped_embedding = 0
    for tensor in tensors:
        if tensor.name in EMBEDDINGS and tensor.num_bytes <= MAX_COPIED_EMBEDDING:
            embedding += tensor.num_bytes
        elif tensor.name in EMBEDDINGS:
            mapped_embedding += tensor.num_bytes
        if len(tensor.shape) < 2:
            vectors += tensor.num_elements * 4
        elif tensor.name in EMBEDDINGS and not tied:
            continue
        elif tied and tensor.name in HEADS:
            continue  # a second copy of the embedding; only one is packed
        elif tensor.type in W4_BITS:
            w4 += packed_bytes(tensor.num_elements, W4_BITS[tensor.type])
        else:
            w8 += packed_bytes(tensor.num_elements, W8_BITS.get(tensor.type, W8_BITS_OF_OTHERS))
    return WeightBytes(w4, w8, vectors, embedding, mapped_embedding)


def packed_bytes(num_weights: int, bits: float) -> int:
    """Bytes of a matrix of `num_weights` with `bits` per weight."""
    return int(num_weights * bits / 8)


def kv_bytes_per_token(settings: Mapping[str, Any], kv_cache_type: str) -> int:
    """Bytes of one token in the KV cache: a key and a value for each layer and KV head.

    With "int8", a vector has `head_dim` bytes and float16 scales: one per 32 values for a key, and one for a value
    vector. With "f16" it has two bytes per number.
    """
    head_dim = int(settings["head_dim"])
    num_scales = head_dim // KV_SCALE_GROUP + 1
    pair = 2 * head_dim + 2 * num_scales if kv_cache_type == "int8" else 4 * head_dim
    return int(settings["num_hidden_layers"]) * int(settings["num_key_value_heads"]) * pair


def kv_capacity(free: int, weights: WeightBytes, per_token: int) -> int:
    """Tokens for which a KV pool has room in `free` bytes, in addition to the weights and a reserve."""
    room = int(free * (1 - RESERVE_SHARE)) - weights.resident - PROCESS_BYTES
    return max(0, room // per_token // KV_BLOCK_SIZE * KV_BLOCK_SIZE)


def default_kv_tokens(
    free: int, weights: WeightBytes, per_token: int, context_length: int, num_engines: int = 1
) -> int:
    """The default size of an engine's KV pool in tokens: half of what fits, but no more than many users need.

    The pool keeps memory that it has used once, for the prefix cache, so the default leaves room for other processes.
    `free` is the engine's own share. Users are divided among the engines.
    """
    crowd = max(context_length, CROWD_TOKENS // num_engines)
    return min(kv_capacity(free, weights, per_token) // 2, crowd) // KV_BLOCK_SIZE * KV_BLOCK_SIZE


def users_that_fit(capacity: int, length: int) -> int:
    """How many users with `length` tokens each fit in a pool of `capacity` tokens, in whole blocks."""
    blocks = -(-length // KV_BLOCK_SIZE)
    return capacity // KV_BLOCK_SIZE // blocks
