"""Products of quantized activations with W4 and W8 weights: exact integers in a group of 32, then one fma a group.

The two planes of 16-bit activations are multiplied to one integer: that of the high plane, times 256, plus that of the
low one.

Weights are padded to pairs of panels of 32 channels. Byte row r of a matrix belongs to channels 64 (r / 32) + r % 32,
"low", and 32 more, "high": a W4 byte holds one nibble of each, and the two are gate and up where panels alternate.
W8: int8 [groups][channels][32]. W4: bytes [groups][channels / 2][32], the low nibble counted from zero, the high one in
two's complement. Scales and mins: float16 [groups][channels].

Tiles are [channels, tokens], so that few tokens waste little of a tensor instruction. Any tile gives the same bits.
With few tokens a product waits for memory, so a turn of the loop over k takes eight groups (`product_of_eights`): their
scales are loaded in one piece, wide enough for the pipeline to copy it ahead like the weights, and the eight integer
products are shared among the warps. Only the additions are in order. With many tokens, warps share the tile.
"""

from __future__ import annotations

import triton
import triton.language as tl

from antiphon.ops.triton.arithmetic import exponential, store_groups


@triton.jit
def low_channels(byte_row):
    """The low channel of each byte row. Byte rows are runs of 16, so loads along them can be wide."""
    byte_row = byte_row.to(tl.int64)
    return tl.max_contiguous(tl.multiple_of((byte_row // 32) * 64 + byte_row % 32, 16), 16)


@triton.jit
def exact_dot(w, a, a_rest, start, WIDE: tl.constexpr):
    """start + w · a or, with WIDE, start + w · (256 a + a_rest)."""
    if WIDE:
        start += tl.dot(w, a, out_dtype=tl.int32) * 256
        return tl.dot(w, a_rest, start, out_dtype=tl.int32)
    else:
        return tl.dot(w, a, start, out_dtype=tl.int32)


@triton.jit
def multiply(a, a_rest, w_ptr, at, low_start, high_start, BITS: tl.constexpr, WIDE: tl.constexpr):
    """Exact sums, for low and high channels, of weights at the addresses `at` [m, 32] and of a and a_rest [32, n].

    All may have a first dimension more, of groups.
    """
    if BITS == 8:
        low = exact_dot(tl.load(w_ptr + at), a, a_rest, low_start, WIDE)
        high = exact_dot(tl.load(w_ptr + at + 32 * 32), a, a_rest, high_start, WIDE)
    else:
        both = tl.load(w_ptr + at)
        low = exact_dot((both & 15).to(tl.int8), a, a_rest, low_start, WIDE)
        # The byte without its low nibble is 16 times the weight, and so is the sum.
        high = exact_dot((both & 240).to(tl.int8, bitcast=True), a, a_rest, high_start, WIDE) >> 4
    return low, high


@triton.jit
def add_group(accumulator, dot, scale, a_scale, least, offset, HAS_MINS: tl.constexpr):
    """One group's exact sums `dot`, scaled and added to `accumulator`.

    Both are [m, n]; `scale` and `least` [m, 1] are the channels', `a_scale` and `offset` [1, n] the tokens'.
    """
    accumulator = tl.fma(dot.to(tl.float32), scale * a_scale, accumulator)
    if HAS_MINS:
        shape: tl.constexpr = accumulator.shape
        accumulator = tl.fma(tl.broadcast_to(least, shape), tl.broadcast_to(offset, shape), accumulator)
    return accumulator


@triton.jit
def split_groups(x):
    """[8, m, n] → eight [m, n], in order."""
    m: tl.constexpr = x.shape[1]
    n: tl.constexpr = x.shape[2]
    even, odd = tl.split(tl.reshape(tl.permute(x, [1, 2, 0]), [m, n, 2, 2, 2]))
    x04, x26 = tl.split(even)
    x15, x37 = tl.split(odd)
    x0, x4 = tl.split(x04)
    x1, x5 = tl.split(x15)
    x2, x6 = tl.split(x26)
    x3, x7 = tl.split(x37)
    return x0, x1, x2, x3, x4, x5, x6, x7


@triton.jit
def load_halves(ptr, channel):
    """Scales or mins of the channels [8, m], and of those 32 after them: eight [m, 1] each."""
    halves = tl.load(ptr + channel[:, None, :] + (tl.arange(0, 2) * 32)[None, :, None]).to(tl.float32)
    low, high = tl.split(tl.permute(halves, [0, 2, 1]))
    return split_groups(low[:, :, None]), split_groups(high[:, :, None])


@triton.jit
def product_of_eights(
    low,
    high,
    byte_row,
    token,
    codes_ptr,
    a_scales_ptr,
    sums_ptr,
    capacity,
    w_ptr,
    scales_ptr,
    mins_ptr,
    num_channels,
    GROUPS: tl.constexpr,
    PLANES: tl.constexpr,
    WIDE: tl.constexpr,
    BITS: tl.constexpr,
    LOW_START: tl.constexpr,
    HIGH_START: tl.constexpr,
    HAS_MINS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """As `product`, with eight groups in a turn."""
    k = tl.arange(0, 32)[None, None, :]
    shape: tl.constexpr = [8, low.shape[0], low.shape[1]]
    channel = low_channels(byte_row)
    for first in tl.range(0, GROUPS, 8, num_stages=STAGES):
        group = first + tl.arange(0, 8)
        if GROUPS % 8 != 0:
            group = tl.minimum(group, GROUPS - 1)  # what is beyond the end is computed, and not added
        group = group[:, None]
        a_at = group * (PLANES * capacity) + token[None, :]
        scale_at = group * capacity + token[None, :]
        codes_at = codes_ptr + a_at[:, None, :] * 32 + tl.arange(0, 32)[None, :, None]
        a = tl.load(codes_at)
        a_rest = tl.load(codes_at + capacity * 32) if WIDE else a
        a_scale, total = tl.load(a_scales_ptr + scale_at), tl.load(sums_ptr + (scale_at if WIDE else a_at))
        channels = group * num_channels + channel[None, :]
        row = channels if BITS == 8 else group * (num_channels // 2) + byte_row[None, :].to(tl.int64)
        low_dot, high_dot = multiply(
            a, a_rest, w_ptr, row[:, :, None] * 32 + k, tl.broadcast_to((total * LOW_START)[:, None, :], shape),
            tl.broadcast_to((total * HIGH_START)[:, None, :], shape), BITS, WIDE,
        )  # fmt: skip
        low_dots, high_dots = split_groups(low_dot), split_groups(high_dot)
        low_scales, high_scales = load_halves(scales_ptr, channels)
        a_scales = split_groups(a_scale[:, None, :])
        low_mins, high_mins, offsets = low_scales, high_scales, a_scales
        if HAS_MINS:
            low_mins, high_mins = load_halves(mins_ptr, channels)
            offsets = split_groups((a_scale * total.to(tl.float32))[:, None, :])
        for i in tl.static_range(8):
            new_low = add_group(low, low_dots[i], low_scales[i], a_scales[i], low_mins[i], offsets[i], HAS_MINS)
            new_high = add_group(high, high_dots[i], high_scales[i], a_scales[i], high_mins[i], offsets[i], HAS_MINS)
            if GROUPS % 8 != 0:
                new_low = tl.where(first + i < GROUPS, new_low, low)
                new_high = tl.where(first + i < GROUPS, new_high, high)
            low, high = new_low, new_high
    return low, high


@triton.jit
def product(
    low,
    high,
    byte_row,
    token,
    codes_ptr,
    a_scales_ptr,
    sums_ptr,
    capacity,
    w_ptr,
    scales_ptr,
    mins_ptr,
    num_channels,
    GROUPS: tl.constexpr,
    PLANES: tl.constexpr,
    WIDE: tl.constexpr,
    BITS: tl.constexpr,
    LOW_START: tl.constexpr,
    HIGH_START: tl.constexpr,
    HAS_MINS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Adds the product to `low` and `high`, each [byte rows, tokens].

    The activations have `capacity` rows and PLANES planes (see `norms`); WIDE: both are multiplied, otherwise the one
    that the pointers point to. LOW_START and HIGH_START times the sum of a group's codes start its integer sums: what
    codes are counted from.
    """
    k = tl.arange(0, 32)
    shape: tl.constexpr = low.shape
    channel = low_channels(byte_row)
    for group in tl.range(0, GROUPS, num_stages=STAGES):
        a_at = group * (PLANES * capacity) + token
        scale_at = group * capacity + token
        codes_at = codes_ptr + a_at[None, :] * 32 + k[:, None]
        a = tl.load(codes_at)
        a_rest = tl.load(codes_at + capacity * 32) if WIDE else a
        a_scale = tl.load(a_scales_ptr + scale_at)
        total = tl.load(sums_ptr + (scale_at if WIDE else a_at))
        channels = group * num_channels + channel
        row = channels if BITS == 8 else group * (num_channels // 2) + byte_row.to(tl.int64)
        low_dot, high_dot = multiply(
            a, a_rest, w_ptr, row[:, None] * 32 + k[None, :], tl.broadcast_to((total * LOW_START)[None, :], shape),
            tl.broadcast_to((total * HIGH_START)[None, :], shape), BITS, WIDE,
        )  # fmt: skip
        low_scale = tl.load(scales_ptr + channels).to(tl.float32)[:, None]
        high_scale = tl.load(scales_ptr + channels + 32).to(tl.float32)[:, None]
        low_least, high_least, offset = low_scale, high_scale, a_scale
        if HAS_MINS:
            low_least = tl.load(mins_ptr + channels).to(tl.float32)[:, None]
            high_least = tl.load(mins_ptr + channels + 32).to(tl.float32)[:, None]
            offset = a_scale * total.to(tl.float32)
        low = add_group(low, low_dot, low_scale, a_scale[None, :], low_least, offset[None, :], HAS_MINS)
        high = add_group(high, high_dot, high_scale, a_scale[None, :], high_least, offset[None, :], HAS_MINS)
    return low, high


@triton.jit
def product_of_planes(
    low,
    high,
    byte_row,
    token,
    codes_ptr,
    a_scales_ptr,
    sums_ptr,
    capacity,
    w_ptr,
    scales_ptr,
    mins_ptr,
    num_channels,
    GROUPS: tl.constexpr,
    PLANES: tl.constexpr,
    WIDE: tl.constexpr,
    BITS: tl.constexpr,
    LOW_START: tl.constexpr,
    HIGH_START: tl.constexpr,
    HAS_MINS: tl.constexpr,
    STAGES: tl.constexpr,
    EIGHTS: tl.constexpr,
):
    """`product_of_eights` with EIGHTS, else `product`."""
    if EIGHTS:
        return product_of_eights(
            low, high, byte_row, token, codes_ptr, a_scales_ptr, sums_ptr, capacity, w_ptr, scales_ptr, mins_ptr,
            num_channels, GROUPS, PLANES, WIDE, BITS, LOW_START, HIGH_START, HAS_MINS, STAGES,
        )  # fmt: skip
    else:
        return product(
            low, high, byte_row, token, codes_ptr, a_scales_ptr, sums_ptr, capacity, w_ptr, scales_ptr, mins_ptr,
            num_channels, GROUPS, PLANES, WIDE, BITS, LOW_START, HIGH_START, HAS_MINS, STAGES,
        )  # fmt: skip


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
    WIDE: tl.constexpr,
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
    EIGHTS: tl.constexpr,
):
    """out [rows, num_outputs] = bias + product or, with ACCUMULATE, += that. Grid: (byte row tiles, token tiles).

    HAS_MAXIMA: also the largest output of each panel of 32.
    """
    byte_row = tl.program_id(0) * BYTE_ROWS + tl.arange(0, BYTE_ROWS)
    inside = byte_row < num_channels // 2
    byte_row = tl.where(inside, byte_row, byte_row % 32)  # what is beyond the end is computed, and not stored
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    low_channel = (byte_row // 32) * 64 + byte_row % 32
    high_channel = low_channel + 32
    low = tl.zeros([BYTE_ROWS, TOKENS], tl.float32)
    high = tl.zeros([BYTE_ROWS, TOKENS], tl.float32)
    if HAS_BIAS:
        low += tl.load(bias_ptr + low_channel)[:, None]
        high += tl.load(bias_ptr + high_channel)[:, None]
    low, high = product_of_planes(
        low, high, byte_row, token, codes_ptr, a_scales_ptr, sums_ptr, capacity, w_ptr, scales_ptr, mins_ptr,
        num_channels, GROUPS, PLANES, WIDE, BITS, LOW_START, HIGH_START, HAS_MINS, STAGES, EIGHTS,
    )  # fmt: skip
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
    EIGHTS: tl.constexpr,
):
    """silu(gate) * up, quantized, of a matrix whose panels are gate and up in turn. Grid as for `linear`."""
    first_row = tl.program_id(0) * BYTE_ROWS
    byte_row = first_row + tl.arange(0, BYTE_ROWS)
    byte_row = tl.where(byte_row < num_channels // 2, byte_row, byte_row % 32)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    gate = tl.zeros([BYTE_ROWS, TOKENS], tl.float32)
    up = tl.zeros([BYTE_ROWS, TOKENS], tl.float32)
    gate, up = product_of_planes(
        gate, up, byte_row, token, codes_ptr, a_scales_ptr, sums_ptr, capacity, w_ptr, scales_ptr, mins_ptr,
        num_channels, GROUPS, PLANES, PLANES == 2, BITS, LOW_START, HIGH_START, HAS_MINS, STAGES, EIGHTS,
    )  # fmt: skip
    activated = tl.div_rn(gate, 1.0 + exponential(0.0 - gate)) * up
    groups: tl.constexpr = BYTE_ROWS // 32
    grouped = tl.permute(tl.reshape(activated, [groups, 32, TOKENS]), [0, 2, 1])
    group = (first_row // 32 + tl.arange(0, groups))[:, None]
    mask = (token < rows)[None, :] & (group < num_channels // 64)
    both: tl.constexpr = [groups, TOKENS]
    group = tl.reshape(tl.broadcast_to(group, both), [groups * TOKENS])
    row = tl.reshape(tl.broadcast_to(token[None, :], both), [groups * TOKENS])
    store_groups(
        tl.reshape(grouped, [groups * TOKENS, 32]), out_codes_ptr, out_scales_ptr, out_sums_ptr, group, row,
        out_capacity, tl.reshape(mask, [groups * TOKENS]), PLANES, False,
    )  # fmt: skip
