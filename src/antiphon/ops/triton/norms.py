"""RMSNorm and the quantizing of its result; rows and columns in another order.

Quantized activations are groups of 32 codes with a scale and the sum of the codes:
codes [groups][planes][capacity][32], scales and sums [groups][capacity]. With one plane codes are int8. With two they
have 16 bits, 256 * high + low with both in int8, the high plane first. Only the head's input may have its planes APART:
each is multiplied alone, the scale is that of the high one, 256 times that of the low one, and
sums [groups][planes][capacity] are those of each plane.
"""

from __future__ import annotations

import triton
import triton.language as tl

from antiphon.ops.triton.arithmetic import inverse_rms, store_groups


@triton.jit(do_not_specialize=["rows"])
def rms_norm(
    x_ptr,
    rows,
    weight_ptr,
    epsilon,
    codes_ptr,
    scales_ptr,
    sums_ptr,
    capacity,
    WIDTH: tl.constexpr,
    PLANES: tl.constexpr,
    APART: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPS_AT_ONCE: tl.constexpr,
):
    """x / rms(x) * weight, quantized, of ROWS rows. Grid: (row tiles,)."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < rows
    begin = row.to(tl.int64) * WIDTH
    inverse = inverse_rms(x_ptr, begin, live, epsilon, WIDTH)
    k = tl.arange(0, 32)[None, None, :]
    for first in range(0, WIDTH // 32, GROUPS_AT_ONCE):
        group = first + tl.arange(0, GROUPS_AT_ONCE)
        mask = live[:, None] & (group < WIDTH // 32)[None, :]
        at = group[None, :, None] * 32 + k
        x = tl.load(x_ptr + begin[:, None, None] + at, mask=mask[:, :, None], other=0.0)
        weight = tl.load(weight_ptr + at, mask=(group < WIDTH // 32)[None, :, None], other=0.0)
        normed = tl.reshape(x * inverse[:, None, None] * weight, [ROWS * GROUPS_AT_ONCE, 32])
        both: tl.constexpr = [ROWS, GROUPS_AT_ONCE]
        groups = tl.reshape(tl.broadcast_to(group[None, :], both), [ROWS * GROUPS_AT_ONCE])
        rows_of_groups = tl.reshape(tl.broadcast_to(row[:, None], both), [ROWS * GROUPS_AT_ONCE])
        stored = tl.reshape(mask, [ROWS * GROUPS_AT_ONCE])
        store_groups(
            normed, codes_ptr, scales_ptr, sums_ptr, groups, rows_of_groups, capacity, stored, PLANES, APART
        )  # fmt: skip


@triton.jit
def take(x_ptr, rows_ptr, columns_ptr, out_ptr, WIDTH: tl.constexpr, HAS_ROWS: tl.constexpr, AT_ONCE: tl.constexpr):
    """out[i][j] = x[rows[i]][j] or, without HAS_ROWS, x[i][columns[j]]; both of WIDTH columns. Grid: (rows of out,)."""
    row = tl.program_id(0).to(tl.int64)
    source = tl.load(rows_ptr + row).to(tl.int64) if HAS_ROWS else row
    for first in range(0, WIDTH, AT_ONCE):
        j = first + tl.arange(0, AT_ONCE)
        mask = j < WIDTH
        column = j if HAS_ROWS else tl.load(columns_ptr + j, mask=mask, other=0)
        tl.store(out_ptr + row * WIDTH + j, tl.load(x_ptr + source * WIDTH + column, mask=mask, other=0.0), mask=mask)
