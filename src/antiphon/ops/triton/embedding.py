"""The kernel that reads the step's tokens from the embedding table; `tables` arranges the table for it."""

from __future__ import annotations

import triton
import triton.language as tl

# How a table holds its values.
CODES = tl.constexpr(0)  # int8, with scales and perhaps minima, float32, for groups of 16 or 32
FLOATS = tl.constexpr(1)
HALVES = tl.constexpr(2)
BFLOATS = tl.constexpr(3)  # the upper 16 bits of float32


@triton.jit
def embed(
    tokens_ptr,
    drawn_ptr,
    values_ptr,
    scales_ptr,
    mins_ptr,
    out_ptr,
    WIDTH: tl.constexpr,
    KIND: tl.constexpr,
    GROUP: tl.constexpr,
    HAS_MINS: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """The rows of the step's tokens, out [rows, WIDTH]. Grid: (rows,). Token -1 - i is drawn[i]."""
    row = tl.program_id(0).to(tl.int64)
    token = tl.load(tokens_ptr + row)
    token = tl.where(token < 0, tl.load(drawn_ptr + tl.maximum(-1 - token, 0)), token)
    token = tl.maximum(token, 0).to(tl.int64)  # where none could be drawn; the result is not used
    for first in range(0, WIDTH, AT_ONCE):
        j = first + tl.arange(0, AT_ONCE)
        mask = j < WIDTH
        x = tl.load(values_ptr + token * WIDTH + j, mask=mask, other=0)
        if KIND == CODES:
            at = token * (WIDTH // GROUP) + j // GROUP
            x = tl.load(scales_ptr + at, mask=mask, other=0.0) * x.to(tl.float32)
            if HAS_MINS:
                x = x + tl.load(mins_ptr + at, mask=mask, other=0.0)
        elif KIND == BFLOATS:
            x = (x.to(tl.int32) << 16).to(tl.float32, bitcast=True)
        else:
            x = x.to(tl.float32)
        tl.store(out_ptr + row * WIDTH + j, x, mask=mask)
