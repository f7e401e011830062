"""How each stored type is read, in NumPy: blocks of bytes in, float32 out. Shares no line with the compiled reader.

Source of the layouts: the GGUF specification and ggml's block definitions. A block is 32 weights or, in the types named
K and in IQ4_XS, 256 in eight groups of 32. Every function takes [blocks, bytes a block] and gives [blocks, weights];
products are taken in ggml's order, so that float32 rounds them to ggml's bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float32]
Bytes: TypeAlias = npt.NDArray[np.uint8]

# The levels that IQ4's codes stand for.
LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)


def _half(two_bytes: Bytes) -> Array:
    """A block's scale or minimum: [blocks, 2] bytes → [blocks, 1]."""
    return np.ascontiguousarray(two_bytes).view(np.float16).astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """Low nibbles come before high ones: [..., n] bytes → [..., 2 n] codes."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def _bits(packed: Bytes) -> Bytes:
    """[blocks, 4] bytes → their 32 bits, the lowest first."""
    return np.unpackbits(packed, axis=1, bitorder="little")


def _bf16(blocks: Bytes) -> Array:
    values: Array = (blocks.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return values


def _q4_0(blocks: Bytes) -> Array:
    return _half(blocks[:, :2]) * (_nibbles(blocks[:, 2:]).astype(np.float32) - 8)


def _q4_1(blocks: Bytes) -> Array:
    return _half(blocks[:, :2]) * _nibbles(blocks[:, 4:]) + _half(blocks[:, 2:4])


def _q4_zp(blocks: Bytes) -> Array:
    return _half(blocks[:, :2]) * (_nibbles(blocks[:, 4:]).astype(np.float32) - 8) + _half(blocks[:, 2:4])


def _q5_0(blocks: Bytes) -> Array:
    codes = _nibbles(blocks[:, 6:]) + 16 * _bits(blocks[:, 2:6])
    return _half(blocks[:, :2]) * (codes.astype(np.float32) - 16)


def _q5_1(blocks: Bytes) -> Array:
    codes = _nibbles(blocks[:, 8:]) + 16 * _bits(blocks[:, 4:8])
    return _half(blocks[:, :2]) * codes + _half(blocks[:, 2:4])


def _q8_0(blocks: Bytes) -> Array:
    return _half(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _q4_k(blocks: Bytes) -> Array:
    return _scaled_k(blocks, _k_nibbles(blocks[:, 16:]))


def _q5_k(blocks: Bytes) -> Array:
    """The fifth bit of weight i of group g is bit g of byte i."""
    fifths = blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1  # [blocks, 8, 32]
    return _scaled_k(blocks, _k_nibbles(blocks[:, 48:]) + 16 * fifths)


def _k_nibbles(packed: Bytes) -> Bytes:
    """Each 32 bytes hold two groups, in their low and their high nibbles: [blocks, 128] → [blocks, 8, 32]."""
    return _nibbles(packed.reshape(-1, 4, 32)).reshape(-1, 8, 32)


def _scaled_k(blocks: Bytes, codes: Bytes) -> Array:
    """Codes [blocks, 8, 32] times their groups' scales, less their groups' minima: six bits each, in twelve bytes."""
    first, second, mixed = np.split(blocks[:, 4:16], 3, axis=1)  # [blocks, 4] each
    scales = np.concatenate([first & 63, mixed & 15 | first >> 6 << 4], axis=1)
    minima = np.concatenate([second & 63, mixed >> 4 | second >> 6 << 4], axis=1)
    scale, least = _half(blocks[:, :2]) * scales, _half(blocks[:, 2:4]) * minima  # [blocks, 8]
    values: Array = scale[:, :, None] * codes - least[:, :, None]
    return values.reshape(len(blocks), -1)


def _q6_k(blocks: Bytes) -> Array:
    """In two halves of 128: nibbles, two more bits of each, and a signed scale for every 16."""
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts & 3  # [blocks, 2, 4, 32]
    codes = (low + 16 * high).astype(np.float32).reshape(-1, 16, 16) - 32
    scales = _half(blocks[:, 208:]) * blocks[:, 192:208].view(np.int8)  # [blocks, 16]
    return (scales[:, :, None] * codes).reshape(len(blocks), -1)


def _iq4_nl(blocks: Bytes) -> Array:
    return _half(blocks[:, :2]) * LEVELS[_nibbles(blocks[:, 2:])]


def _iq4_xs(blocks: Bytes) -> Array:
    """Scales of six bits: low ones as nibbles in turn, the high two of all eight in a word."""
    low = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=2).reshape(-1, 8)
    word = np.ascontiguousarray(blocks[:, 2:4]).view(np.uint16)
    high = (word >> np.arange(0, 16, 2, dtype=np.uint16) & 3).astype(np.uint8)
    scales = _half(blocks[:, :2]) * ((low + 16 * high).astype(np.float32) - 32)  # [blocks, 8]
    levels = LEVELS[_nibbles(blocks[:, 8:].reshape(-1, 8, 16))]
    return (scales[:, :, None] * levels).reshape(len(blocks), -1)


VALUES_OF: dict[str, Callable[[Bytes], npt.NDArray[np.floating]]] = {
    "F32": lambda blocks: blocks.view(np.float32),
    "F16": lambda blocks: blocks.view(np.float16),
    "BF16": _bf16,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q4_ZP": _q4_zp,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
}
