"""Unpacks the parts of a quantized matrix and writes them as blocks of a type that the kernels know, with NumPy.

The layouts, 32-bit words of 8 codes of 4 bits or 4 of 8, the lowest bits first:

- AWQ (AutoAWQ's gemm): words run along the outputs, with codes in AWQ_ORDER; the same for zero points.
- GPTQ (AutoGPTQ, GPTQModel): words of codes run along the inputs, words of zero points along the outputs; the first
  version stores zero points less one. Symmetric zero points are the middle code, in whichever version's form.
- compressed-tensors: words of codes run along the inputs and those of zero points along the outputs, both offset by the
  middle code so that they have no sign; or each is an int8.

Scales and zero points are checked before a matrix is allocated. The rest is unpacked in slabs that fit the processor's
cache.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon.checkpoint import Tensor, block_of
from antiphon.errors import CheckpointError
from antiphon.formats.act_order import Arrangement
from antiphon.formats.quantization_config import GROUP, QuantizationConfig
from antiphon.formats.quantized_parts import Parts
from antiphon.machine import default_threads

Codes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the output that each place of a word holds
SLAB = 512  # rows unpacked at once; a multiple of a word's codes


def read_blocks(parts: Parts, arrangement: Arrangement, how: QuantizationConfig, kind: str) -> memoryview:
    """The whole matrix as bytes of type `kind`; raises CheckpointError, naming the part, for impossible numbers."""
    scales = _scales(parts, how)
    zeros = _zeros(parts, how)
    if kind == "Q4_ZP":
        _check_minima(parts, scales, zeros)
    unpack = _unpacker(parts.codes, how)
    size, block = block_of(kind)
    out = np.empty((parts.rows, parts.columns // block, size), np.uint8)
    order = None if arrangement.columns is None else np.array(arrangement.columns)
    group_of = _group_of(parts, how)
    place = (group_of if order is None else group_of[order])[::block]

    def fill(first: int) -> None:
        rows = slice(first, min(first + SLAB, parts.rows))
        codes = unpack(rows) if order is None else unpack(rows)[:, order]
        _WRITERS[kind](codes, scales[rows][:, place], zeros[rows][:, place], out[rows])

    with ThreadPoolExecutor(default_threads()) as pool:  # NumPy releases the interpreter lock
        list(pool.map(fill, range(0, parts.rows, SLAB)))
    return (out if arrangement.rows is None else out[list(arrangement.rows)]).reshape(-1).data


def _group_of(parts: Parts, how: QuantizationConfig) -> npt.NDArray[np.int64]:
    """The group of each column, in stored order."""
    if parts.group_of is not None:
        return np.frombuffer(parts.group_of.read(), "<i4").astype(np.int64)
    return np.arange(parts.columns) // (how.group_size or parts.columns)


def _scales(parts: Parts, how: QuantizationConfig) -> Floats:
    """[rows, groups]"""
    tensor = parts.scales
    raw = np.frombuffer(tensor.read(), {"F16": "<f2", "BF16": "<u2", "F32": "<f4"}[tensor.type])
    values = (raw.astype(np.uint32) << 16).view(np.float32) if tensor.type == "BF16" else raw.astype(np.float32)
    with np.errstate(over="ignore"):
        if not np.isfinite(values.astype(np.float16)).all():
            raise CheckpointError(f"tensor {tensor.name}: holds a scale that is not a finite number of half precision")
    shaped = values.reshape(tensor.shape)
    return shaped if how.method == "compressed-tensors" else np.ascontiguousarray(shaped.T)


def _check_minima(parts: Parts, scales: Floats, zeros: Codes) -> None:
    with np.errstate(over="ignore"):
        if not np.isfinite((scales * _off_middle(zeros)).astype(np.float16)).all():
            raise CheckpointError(
                f"tensor {parts.scales.name}: holds a scale that, times its zero point, is beyond half precision"
            )


def _off_middle(zeros: Codes) -> Floats:
    """How far zero points of 4 bits are below the middle code."""
    return np.float32(8) - zeros


def _zeros(parts: Parts, how: QuantizationConfig) -> Codes:
    """Zero points as codes, [rows, groups]."""
    middle = 1 << how.bits - 1
    tensor = parts.zeros
    if tensor is None:
        return np.full((parts.rows, parts.num_groups), middle, np.uint8)
    stored = _stored_zeros(tensor, how)[: parts.rows]
    if not how.symmetric:
        if how.zero_offset and (stored == (1 << how.bits) - 1).any():
            raise CheckpointError(
                f"tensor {tensor.name}: holds a zero point of {1 << how.bits}, but codes have {how.bits} bits"
            )
        return stored + np.uint8(how.zero_offset)
    if not np.isin(stored, (middle, middle - 1) if how.method == "gptq" else middle).all():
        raise CheckpointError(
            f"tensor {tensor.name}: holds a zero point other than {middle}, but config.json says that it is symmetric"
        )
    return np.full_like(stored, middle)


def _stored_zeros(tensor: Tensor, how: QuantizationConfig) -> Codes:
    """[rows, groups]"""
    if tensor.type == "I8":
        return np.frombuffer(tensor.read(), np.uint8).reshape(tensor.shape) + np.uint8(1 << how.bits - 1)
    words = _words(tensor)
    return _codes_of(words.T, how).T if how.method == "compressed-tensors" else _codes_of(words, how).T


def _unpacker(tensor: Tensor, how: QuantizationConfig) -> Callable[[slice], Codes]:
    """A function from a slice of rows to their codes, [rows, columns]."""
    if tensor.type == "I8":
        signed = np.frombuffer(tensor.read(), np.uint8).reshape(tensor.shape)
        return lambda rows: signed[rows] ^ np.uint8(0x80)
    words = _words(tensor)
    if how.method == "awq":
        return lambda rows: _codes_of(words[:, rows.start // 8 : rows.stop // 8], how).T
    by_row = words.T if how.method == "gptq" else words
    return lambda rows: _codes_of(by_row[rows], how)


def _words(tensor: Tensor) -> npt.NDArray[np.uint32]:
    return np.frombuffer(tensor.read(), "<u4").reshape(tensor.shape)


def _codes_of(words: npt.NDArray[np.uint32], how: QuantizationConfig) -> Codes:
    """[rows, words] → [rows, codes]"""
    octets = np.ascontiguousarray(words).view(np.uint8)
    if how.bits == 8:
        return octets
    octets = octets.reshape(*words.shape, 4)
    codes = np.empty((*words.shape, 8), np.uint8)
    order = AWQ_ORDER if how.method == "awq" else range(8)
    codes[..., order[0::2]] = octets & np.uint8(15)
    codes[..., order[1::2]] = octets >> np.uint8(4)
    return codes.reshape(len(words), -1)


# Each writes rows of codes [rows, columns], with scales and zero points [rows, blocks], to out [rows, blocks, bytes].


def _write_q4_0(codes: Codes, scales: Floats, zeros: Codes, out: Codes) -> None:
    out[..., :2] = _half(scales)
    out[..., 2:] = _nibbles(codes)


def _write_q4_zp(codes: Codes, scales: Floats, zeros: Codes, out: Codes) -> None:
    """The zero point's distance from the middle, times the scale, in half precision: exact in most cases."""
    out[..., :2] = _half(scales)
    out[..., 2:4] = _half(scales * _off_middle(zeros))
    out[..., 4:] = _nibbles(codes)


def _write_q8_0(codes: Codes, scales: Floats, zeros: Codes, out: Codes) -> None:
    out[..., :2] = _half(scales)
    out[..., 2:] = codes.reshape(len(codes), -1, GROUP) ^ np.uint8(0x80)


def _write_f32(codes: Codes, scales: Floats, zeros: Codes, out: Codes) -> None:
    out.view(np.float32)[..., 0] = (codes.astype(np.float32) - zeros) * scales


_WRITERS: dict[str, Any] = {"Q4_0": _write_q4_0, "Q4_ZP": _write_q4_zp, "Q8_0": _write_q8_0, "F32": _write_f32}


def _half(values: Floats) -> Codes:
    """[rows, blocks] → their bytes in half precision, [rows, blocks, 2]."""
    return values.astype(np.float16)[..., None].view(np.uint8)


def _nibbles(codes: Codes) -> Codes:
    """[rows, columns] → [rows, blocks, 16]: a block's first half in the low nibbles, its second in the high ones."""
    halves = codes.reshape(len(codes), -1, 2, GROUP // 2)
    return halves[:, :, 0] | halves[:, :, 1] << np.uint8(4)
