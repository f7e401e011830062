"""Products of quantized activations with W4 and W8 weights: exact integers in a group of 32, then one fma a group.

Weights are padded to pairs of panels of 32 channels. Byte row r of a matrix belongs to channels 64 (r / 32) + r % 32,
"low", and 32 more, "high": a W4 byte holds one nibble of each, and the two are gate and up where panels alternate.
W8: int8 [groups][channels][32]. W4: bytes [groups][channels / 2][32], the low nibble counted from zero, the high one in
two's complement. Scales and mins: float16 [groups][channels].

Tiles are [channels, tokens], so that few tokens waste little of a tensor instruction. Any tile gives the same bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from antiphon.ops.triton.arithmetic import exponential, store_groups


@triton.jit
def multiply_group(accumulator, dot, channel, scales_ptr, mins_ptr, a_scale, total, HAS_MINS: tl.constexpr):
    """One group's exact sums, scaled and added; `accumulator` and `dot`: [channels, tokens]."""
    scale = tl.load(scales_ptr + channel).to(tl.float32)
    accumulator = tl.fma(dot.to(tl.float32), scale[:, None] * a_scale[None, :], accumulator)
    if HAS_MINS:
        least = tl.load(mins_ptr + channel).to(tl.float32)
        offset = a_scale * total.to(tl.float32)
        shape: tl.constexpr = accumulator.shape
        accumulator = tl.fma(
            tl.broadcast_to(least[:, None], shape), tl.broadcast_to(offset[None, :], shape), accumulator
        )
    return accumulator


@triton.jit
def product(
    low,
    high,
    byte_row,
    token,
    codes_ptr,
    a_scales_ptr,
    sums_ptr,
    group_stride,
    w_ptr,
    scales_ptr,
    mins_ptr,
    num_channels,
    GROUPS: tl.constexpr,
    BITS: tl.constexpr,
    LOW_START: tl.constexpr,
    HIGH_START: tl.constexpr,
    HAS_MINS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Adds the product to `low` and `high`, each [byte rows, tokens].

    LOW_START and HIGH_START times the sum of a group's codes start its integer sums: what codes are counted from.
    """
    k = tl.arange(0, 32)
    shape: tl.constexpr = low.shape
    byte_row = byte_row.to(tl.int64)
    low_channel = (byte_row // 32) * 64 + byte_row % 32
    for group in tl.range(0, GROUPS, num_stages=STAGES):
        a_at = group * group_stride + token
        a = tl.load(codes_ptr + a_at[None, :] * 32 + k[:, None])
        a_scale = tl.load(a_scales_ptr + a_at)
        total = tl.load(sums_ptr + a_at)
        low_start = tl.broadcast_to((total * LOW_START)[None, :], shape)
        high_start = tl.broadcast_to((total * HIGH_START)[None, :], shape)
        channel = group * num_channels + low_channel
        if BITS == 8:
            low_w = tl.load(w_ptr + channel[:, None] * 32 + k[None, :])
            high_w = tl.load(w_ptr + (channel + 32)[:, None] * 32 + k[None, :])
            low_dot = tl.dot(low_w, a, low_start, out_dtype=tl.int32)
            high_dot = tl.dot(high_w, a, high_start, out_dtype=tl.int32)
        else:
            byte_at = group * (num_channels // 2) + byte_row
            both = tl.load(w_ptr + byte_at[:, None] * 32 + k[None, :])
            low_dot = tl.dot((both & 15).to(tl.int8), a, low_start, out_dtype=tl.int32)
            # The byte without its low nibble is 16 times the weight, and so is the sum.
            high_dot = tl.dot((both & 240).to(tl.int8, bitcast=True), a, high_start, out_dtype=tl.int32) >> 4
        low = multiply_group(low, low_dot, channel, scales_ptr, mins_ptr, a_scale, total, HAS_MINS)
        high = multiply_group(high, high_dot, channel + 32, scales_ptr, mins_ptr, a_scale, total, HAS_MINS)
    return low, high


@triton.jit(do_not_specialize=["rows", "maxima_stride", "out_stride"])
def linear(
    codes_ptr,
    a_scales_ptr,
    sums_ptr,
    capacity,
    rows,
    w_ptr,
    scales_ptr,
    mins_ptr,
    num_channels,
    bias_ptr,
    out_ptr,
    out_stride,
    num_outputs,
    maxima_ptr,
    maxima_stride,
    GROUPS: tl.constexpr,
    PLANES: tl.constexpr,
    PLANES_USED: tl.constexpr,
    BITS: tl.constexpr,
    LOW_START: tl.constexpr,
    HIGH_START: tl.constexpr,
    HAS_MINS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACCUMULATE: tl.constexpr,
    HAS_MAXIMA: tl.constexpr,
    BYTE_ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """out [rows, num_outputs] = bias + product or, with ACCUMULATE, += that. Grid: (byte row tiles, token tiles).

    The planes' products are summed apart and then added. HAS_MAXIMA: also the largest output of each panel of 32.
    """
    byte_row = tl.program_id(0) * BYTE_ROWS + tl.arange(0, BYTE_ROWS)
    inside = byte_row < num_channels // 2
    byte_row = tl.minimum(byte_row, num_channels // 2 - 1)  # what is beyond the end is computed, and not stored
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    low_channel = (byte_row // 32) * 64 + byte_row % 32
    high_channel = low_channel + 32
    low = tl.zeros([BYTE_ROWS, TOKENS], tl.float32)
    high = tl.zeros([BYTE_ROWS, TOKENS], tl.float32)
    if HAS_BIAS:
        low += tl.load(bias_ptr + low_channel)[:, None]
        high += tl.load(bias_ptr + high_channel)[:, None]
    low, high = product(
        low, high, byte_row, token, codes_ptr, a_scales_ptr, sums_ptr, PLANES * capacity,
        w_ptr, scales_ptr, mins_ptr, num_channels, GROUPS, BITS, LOW_START, HIGH_START, HAS_MINS, STAGES,
    )  # fmt: skip
    if PLANES_USED == 2:
        low_rest = tl.zeros([BYTE_ROWS, TOKENS], tl.float32)
        high_rest = tl.zeros([BYTE_ROWS, TOKENS], tl.float32)
        low_rest, high_rest = product(
            low_rest, high_rest, byte_row, token + capacity, codes_ptr, a_scales_ptr, sums_ptr, PLANES * capacity,
            w_ptr, scales_ptr, mins_ptr, num_channels, GROUPS, BITS, LOW_START, HIGH_START, HAS_MINS, STAGES,
        )  # fmt: skip
        low += low_rest
        high += high_rest
    live = (token < rows)[None, :]
    low_mask = live & (inside & (low_channel < num_outputs))[:, None]
    high_mask = live & (inside & (high_channel < num_outputs))[:, None]
    low_to = out_ptr + token.to(tl.int64)[None, :] * out_stride + low_channel[:, None]
    if ACCUMULATE:
        low = tl.load(low_to, mask=low_mask, other=0.0) + low
        high = tl.load(low_to + 32, mask=high_mask, other=0.0) + high
    tl.store(low_to, low, mask=low_mask)
    tl.store(low_to + 32, high, mask=high_mask)
    if HAS_MAXIMA:
        panels: tl.constexpr = BYTE_ROWS // 32
        low_panels = tl.reshape(tl.where(low_mask, low, float("-inf")), [panels, 32, TOKENS])
        high_panels = tl.reshape(tl.where(high_mask, high, float("-inf")), [panels, 32, TOKENS])
        first_row = tl.program_id(0) * BYTE_ROWS + tl.arange(0, panels) * 32
        panel = (first_row // 32) * 2
        to = maxima_ptr + token[None, :] * maxima_stride + panel[:, None]
        mask = live & (first_row < num_channels // 2)[:, None]
        tl.store(to, tl.max(low_panels, 1), mask=mask)
        tl.store(to + 1, tl.max(high_panels, 1), mask=mask)


@triton.jit(do_not_specialize=["rows"])
def linear_silu_mul(
    codes_ptr,
    a_scales_ptr,
    sums_ptr,
    capacity,
    rows,
    w_ptr,
    scales_ptr,
    mins_ptr,
    num_channels,
    out_codes_ptr,
    out_scales_ptr,
    out_sums_ptr,
    out_capacity,
    GROUPS: tl.constexpr,
    PLANES: tl.constexpr,
    BITS: tl.constexpr,
    LOW_START: tl.constexpr,
    HIGH_START: tl.constexpr,
    HAS_MINS: tl.constexpr,
    BYTE_ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """silu(gate) * up, quantized, of a matrix whose panels are gate and up in turn. Grid as for `linear`."""
    first_row = tl.program_id(0) * BYTE_ROWS
    byte_row = tl.minimum(first_row + tl.arange(0, BYTE_ROWS), num_channels // 2 - 1)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    gate = tl.zeros([BYTE_ROWS, TOKENS], tl.float32)
    up = tl.zeros([BYTE_ROWS, TOKENS], tl.float32)
    gate, up = product(
        gate, up, byte_row, token, codes_ptr, a_scales_ptr, sums_ptr, PLANES * capacity,
        w_ptr, scales_ptr, mins_ptr, num_channels, GROUPS, BITS, LOW_START, HIGH_START, HAS_MINS, STAGES,
    )  # fmt: skip
    if PLANES == 2:
        gate_rest = tl.zeros([BYTE_ROWS, TOKENS], tl.float32)
        up_rest = tl.zeros([BYTE_ROWS, TOKENS], tl.float32)
        gate_rest, up_rest = product(
            gate_rest, up_rest, byte_row, token + capacity, codes_ptr, a_scales_ptr, sums_ptr, PLANES * capacity,
            w_ptr, scales_ptr, mins_ptr, num_channels, GROUPS, BITS, LOW_START, HIGH_START, HAS_MINS, STAGES,
        )  # fmt: skip
        gate += gate_rest
        up += up_rest
    activated = tl.div_rn(gate, 1.0 + exponential(0.0 - gate)) * up
    groups: tl.constexpr = BYTE_ROWS // 32
    grouped = tl.permute(tl.reshape(activated, [groups, 32, TOKENS]), [0, 2, 1])
    group = (first_row // 32 + tl.arange(0, groups))[:, None]
    at = group * (PLANES * out_capacity) + token[None, :]
    mask = (token < rows)[None, :] & (group < num_channels // 64)
    store_groups(
        tl.reshape(grouped, [groups * TOKENS, 32]), out_codes_ptr, out_scales_ptr, out_sums_ptr,
        tl.reshape(at, [groups * TOKENS]), out_capacity, tl.reshape(mask, [groups * TOKENS]), PLANES,
    )  # fmt: skip
