"""Rotary positions, the KV pool and attention over it, as native/generic/attention-inl.h and kv_pool-inl.h have them.

The pool of a layer, for each block of 32 tokens and each KV head: K int8 [32 tokens][head_dim] with float16 scales
[head_dim / 32][32 tokens]; V int8 [head_dim][32 tokens] with float16 scales [32 tokens]. Both products then read their
values of k next to each other.

The softmax starts anew every 256 positions, and the segments' states are folded in order. A program computes one
segment of a few query tokens or, from the first on, several that it folds itself; `fold` folds the rest.
"""

from __future__ import annotations

import triton
import triton.language as tl

from antiphon.ops.triton.arithmetic import (
    OF_127,
    add_halves,
    exponential,
    fold_lanes,
    inverse_rms,
    planes_of,
    quantize,
    round_to_even,
    store_groups,
    to_codes,
)

BLOCK_TOKENS = tl.constexpr(32)
SEGMENT_TOKENS = tl.constexpr(256)
LARGEST_IN_POOL = tl.constexpr(8e6)


@triton.jit
def hadamard(x, RUN: tl.constexpr):
    """Walsh–Hadamard butterflies, unnormalised, over runs of RUN in each row of x; sizes are powers of two."""
    rows: tl.constexpr = x.shape[0]
    size: tl.constexpr = x.shape[1]
    for width in tl.static_range(10):
        if (1 << width) < RUN:
            pairs = tl.reshape(x, [rows * size // (2 << width), 2, 1 << width])
            a, b = tl.split(tl.permute(pairs, [0, 2, 1]))
            x = tl.reshape(tl.permute(tl.join(a + b, a - b), [0, 2, 1]), [rows, size])
    return x


@triton.jit
def rotated(x_ptr, at, mask, norm_ptr, epsilon, cosine, sine, d, DIM: tl.constexpr, HAS_NORM: tl.constexpr):
    """Heads that begin at[i] after x_ptr, normed, turned by their positions: [rows, size of d]; zeros beyond DIM."""
    half: tl.constexpr = DIM // 2
    other = tl.where(d < half, d + half, d - half)
    inside = mask[:, None] & (d < DIM)[None, :]
    x = tl.load(x_ptr + at[:, None] + d[None, :], mask=inside, other=0.0)
    partner = tl.load(x_ptr + at[:, None] + other[None, :], mask=inside, other=0.0)
    if HAS_NORM:
        inverse = inverse_rms(x_ptr, at, mask, epsilon, DIM)[:, None]
        x = x * inverse * tl.load(norm_ptr + d, mask=d < DIM, other=0.0)[None, :]
        partner = partner * inverse * tl.load(norm_ptr + other, mask=d < DIM, other=0.0)[None, :]
    return tl.where((d < half)[None, :], x * cosine - partner * sine, x * cosine + partner * sine)


@triton.jit
def pool_scale(largest):
    """The smallest float16 with which codes within 127 reach `largest`."""
    scale = largest * OF_127
    half = scale.to(tl.float16)
    above = (half.to(tl.int16, bitcast=True) + 1).to(tl.float16, bitcast=True)
    return tl.where(half.to(tl.float32) < scale, above, half)


@triton.jit
def pool_codes(x, scale):
    """x [n, m] in units of scale [n], rounded."""
    value = scale.to(tl.float32)
    ones = tl.full(value.shape, 1.0, tl.float32)
    inverse = tl.where(value > 0.0, tl.div_rn(ones, tl.where(value > 0.0, value, 1.0)), 0.0)
    return round_to_even(x * inverse[:, None]).to(tl.int8)


@triton.jit(do_not_specialize=["rows"])
def rope_and_store(
    qkv_ptr,
    rows,
    positions_ptr,
    blocks_ptr,
    cosines_ptr,
    sines_ptr,
    q_norm_ptr,
    k_norm_ptr,
    epsilon,
    query_scale,
    rotation,
    q_codes_ptr,
    q_scales_ptr,
    k_ptr,
    k_scales_ptr,
    v_ptr,
    v_scales_ptr,
    pairs_ptr,
    first_bias_ptr,
    second_bias_ptr,
    terms_ptr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    SIZE: tl.constexpr,
    RUN: tl.constexpr,
    PLANES: tl.constexpr,
    HAS_NORMS: tl.constexpr,
    PAIRS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Query heads are quantized for attention; K and V of a KV head go into the pool. Grid: (row tiles, all heads).

    A program computes ROWS rows. A row whose block is -1 is padding: nothing of it goes into the pool.
    q_codes [rows][heads][PLANES][DIM], q_scales [rows][heads][DIM / 32]. SIZE: DIM rounded up to a power of two. RUN:
    of the Hadamard transform. PAIRS: of a KV head's bias that is not in the pool, 0 where there is none, else a power
    of two; pairs and biases [KV heads][PAIRS]; terms [rows][heads][2][PAIRS]: the factors of the cosines and of the
    sines in the scores' share of that bias.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < rows
    row = row.to(tl.int64)
    head = tl.program_id(1)
    half: tl.constexpr = DIM // 2
    width: tl.constexpr = (HEADS + 2 * KV_HEADS) * DIM
    groups: tl.constexpr = SIZE // 32
    position = tl.load(positions_ptr + row, mask=live, other=0).to(tl.int64)
    d = tl.arange(0, SIZE)
    inside = live[:, None] & (d < DIM)[None, :]
    group = tl.arange(0, groups)[None, :]
    stored = tl.reshape(live[:, None] & (group < DIM // 32), [ROWS * groups])
    k = tl.arange(0, 32)[None, :]
    angle_at = position[:, None] * half + (d % half)[None, :]
    cosine = tl.load(cosines_ptr + angle_at, mask=inside, other=0.0)
    sine = tl.load(sines_ptr + angle_at, mask=inside, other=0.0)
    begin = row * width + head * DIM
    if head < HEADS:
        query = rotated(qkv_ptr, begin, live, q_norm_ptr, epsilon, cosine, sine, d, DIM, HAS_NORMS)
        query = hadamard(query, RUN) * query_scale
        at = tl.reshape((row * HEADS + head)[:, None] * (PLANES * DIM // 32) + group, [ROWS * groups])
        scale_at = tl.reshape((row * HEADS + head)[:, None] * (DIM // 32) + group, [ROWS * groups])
        codes, scales = quantize(tl.reshape(query, [ROWS * groups, 32]), 1 if PLANES == 1 else 256)
        if PLANES == 1:
            tl.store(q_codes_ptr + at[:, None] * 32 + k, codes.to(tl.int8), mask=stored[:, None])
        else:
            high, low = planes_of(codes)
            tl.store(q_codes_ptr + at[:, None] * 32 + k, high, mask=stored[:, None])
            tl.store(q_codes_ptr + (at + DIM // 32)[:, None] * 32 + k, low, mask=stored[:, None])
            scales *= 1.0 / 256.0
        tl.store(q_scales_ptr + scale_at, scales, mask=stored)
        if PAIRS > 0:
            plain = hadamard(query, RUN) * rotation
            i = tl.arange(0, PAIRS)
            bias_at = (head // (HEADS // KV_HEADS)) * PAIRS + i
            pair = tl.broadcast_to(tl.load(pairs_ptr + bias_at)[None, :], [ROWS, PAIRS])
            first, second = tl.gather(plain, pair, 1), tl.gather(plain, pair + half, 1)
            first_bias = tl.load(first_bias_ptr + bias_at)[None, :]
            second_bias = tl.load(second_bias_ptr + bias_at)[None, :]
            terms = terms_ptr + (row * HEADS + head)[:, None] * (2 * PAIRS) + i[None, :]
            tl.store(terms, first * first_bias + second * second_bias, mask=live[:, None])
            tl.store(terms + PAIRS, second * first_bias - first * second_bias, mask=live[:, None])
    else:
        kv_head = head - HEADS
        key = rotated(qkv_ptr, begin, live, k_norm_ptr, epsilon, cosine, sine, d, DIM, HAS_NORMS)
        key = hadamard(key, RUN) * rotation
        value_at = begin[:, None] + KV_HEADS * DIM + d[None, :]
        value = tl.load(qkv_ptr + value_at, mask=inside, other=0.0)
        largest = tl.maximum(tl.max(tl.abs(key), 1), tl.max(tl.abs(value), 1))
        taint = tl.sum(key * 0.0, 1) + tl.sum(value * 0.0, 1)
        fits = (largest <= LARGEST_IN_POOL) & (taint == 0.0)
        # What the pool cannot hold becomes K not-a-number, for whoever attends to it, and V zero, for whoever does not.
        key = tl.reshape(tl.where(fits[:, None], key, 0.0), [ROWS * groups, 32])
        value = tl.where(fits[:, None], value, 0.0)
        block = tl.load(blocks_ptr + row, mask=live, other=-1).to(tl.int64)
        has_block = block >= 0
        stored = stored & tl.reshape(tl.broadcast_to(has_block[:, None], [ROWS, groups]), [ROWS * groups])
        block = block * KV_HEADS + kv_head
        slot = position % BLOCK_TOKENS
        scale = pool_scale(tl.max(tl.abs(key), 1))
        to = ((block * BLOCK_TOKENS + slot) * DIM)[:, None] + group * 32
        to = tl.reshape(to, [ROWS * groups])
        tl.store(k_ptr + to[:, None] + k, pool_codes(key, scale), mask=stored[:, None])
        kept = tl.reshape(tl.broadcast_to(fits[:, None], [ROWS, groups]), [ROWS * groups])
        scale = tl.where(kept, scale, float("nan")).to(tl.float16)
        k_scale_at = (block[:, None] * (DIM // 32) + group) * BLOCK_TOKENS + slot[:, None]
        tl.store(k_scales_ptr + tl.reshape(k_scale_at, [ROWS * groups]), scale, mask=stored)
        value_scale = pool_scale(tl.max(tl.abs(value), 1))
        to = (block[:, None] * DIM + d[None, :]) * BLOCK_TOKENS + slot[:, None]
        tl.store(v_ptr + to, pool_codes(value, value_scale), mask=inside & has_block[:, None])
        tl.store(v_scales_ptr + block * BLOCK_TOKENS + slot, value_scale, mask=has_block)


@triton.jit
def scored(s, q_codes_ptr, q_scales_ptr, row_at, live, k_ptr, k_scales_ptr, DIM: tl.constexpr, PLANES: tl.constexpr):
    """Adds the queries times K of a block to s [rows, 32 tokens], one fma a group of dimensions."""
    t = tl.arange(0, 32)
    at = row_at * (PLANES * DIM)
    for group in tl.static_range(DIM // 32):
        query_at = q_codes_ptr + at[:, None] + group * 32 + t[None, :]
        query = tl.load(query_at, mask=live[:, None], other=0)
        q_scale = tl.load(q_scales_ptr + row_at * (DIM // 32) + group, mask=live, other=0.0)
        key = tl.load(k_ptr + t[None, :] * DIM + group * 32 + t[:, None])
        k_scale = tl.load(k_scales_ptr + group * BLOCK_TOKENS + t).to(tl.float32)
        dot = tl.dot(query, key, out_dtype=tl.int32)
        if PLANES == 2:
            rest = tl.load(query_at + DIM, mask=live[:, None], other=0)
            dot = tl.dot(rest, key, dot * 256, out_dtype=tl.int32)
        s = tl.fma(dot.to(tl.float32), k_scale[None, :] * q_scale[:, None], s)
    return s


@triton.jit
def with_bias(s, terms_ptr, row_at, live, cosines_ptr, sines_ptr, turns_ptr, pairs_ptr, num_pairs, PAIRS: tl.constexpr):
    """Adds the share of K's bias to the scores of a block; cosines and sines are those of its first position."""
    t = tl.arange(0, 32)
    shape: tl.constexpr = s.shape
    for i in range(0, num_pairs):
        pair = tl.load(pairs_ptr + i)
        cosine, sine = tl.load(cosines_ptr + pair), tl.load(sines_ptr + pair)
        a = tl.load(terms_ptr + row_at * 2 * PAIRS + i, mask=live, other=0.0)
        b = tl.load(terms_ptr + row_at * 2 * PAIRS + PAIRS + i, mask=live, other=0.0)
        turned = tl.fma(b, tl.broadcast_to(sine, b.shape), a * cosine)
        turn = tl.load(turns_ptr + i * BLOCK_TOKENS + t)
        s = tl.fma(tl.broadcast_to(turned[:, None], shape), tl.broadcast_to(turn[None, :], shape), s)
    for i in range(0, num_pairs):
        pair = tl.load(pairs_ptr + i)
        cosine, sine = tl.load(cosines_ptr + pair), tl.load(sines_ptr + pair)
        a = tl.load(terms_ptr + row_at * 2 * PAIRS + i, mask=live, other=0.0)
        b = tl.load(terms_ptr + row_at * 2 * PAIRS + PAIRS + i, mask=live, other=0.0)
        turned = b * cosine - a * sine
        turn = tl.load(turns_ptr + (PAIRS + i) * BLOCK_TOKENS + t)
        s = tl.fma(tl.broadcast_to(turned[:, None], shape), tl.broadcast_to(turn[None, :], shape), s)
    return s


@triton.jit
def accumulate(output, weights, values, correction, PLANES: tl.constexpr):
    """output * correction + weights [rows, 32], quantized, times values [32, dims]."""
    shape: tl.constexpr = output.shape
    largest = tl.max(tl.abs(weights), 1)
    scales = largest * OF_127
    if PLANES == 1:
        dot = tl.dot(to_codes(weights, largest, 1).to(tl.int8), values, out_dtype=tl.int32)
    else:
        high, low = planes_of(to_codes(weights, largest, 256))
        dot = tl.dot(low, values, tl.dot(high, values, out_dtype=tl.int32) * 256, out_dtype=tl.int32)
        scales *= 1.0 / 256.0
    return tl.fma(dot.to(tl.float32), tl.broadcast_to(scales[:, None], shape), output * correction[:, None])


@triton.jit
def attend(
    items_ptr,
    tables_ptr,
    q_codes_ptr,
    q_scales_ptr,
    k_ptr,
    k_scales_ptr,
    v_ptr,
    v_scales_ptr,
    cosines_ptr,
    sines_ptr,
    terms_ptr,
    turns_ptr,
    pairs_ptr,
    num_pairs_ptr,
    outputs_ptr,
    sums_ptr,
    maxima_ptr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    SIZE: tl.constexpr,
    PLANES: tl.constexpr,
    PAIRS: tl.constexpr,
    ROWS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """The softmax state of a work item, for one KV head. Grid: (items, KV heads).

    items: int32 [items][8]: first row of the step, query tokens, position of the first, where its block table begins in
    `tables`, first segment, segment after the last, and the first row of its state. ROWS: at least query tokens times
    query heads a KV head, heads fastest. An item of zeros is padding. outputs [state rows][KV heads][DIM], sums
    [..][16], maxima [..]. turns [KV heads][2 * PAIRS][32 tokens].
    """
    item = items_ptr + tl.program_id(0) * 8
    kv_head = tl.program_id(1)
    query_heads: tl.constexpr = HEADS // KV_HEADS
    first_row, tokens, first_position = tl.load(item), tl.load(item + 1), tl.load(item + 2)
    table = tables_ptr + tl.load(item + 3)
    first_segment, end_segment, state = tl.load(item + 4), tl.load(item + 5), tl.load(item + 6)
    last_position = first_position + tokens - 1
    row = tl.arange(0, ROWS)
    live = row < tokens * query_heads
    position = first_position + row // query_heads
    row_at = (first_row + row // query_heads).to(tl.int64) * HEADS + kv_head * query_heads + row % query_heads
    t = tl.arange(0, 32)
    d = tl.arange(0, SIZE)
    folded_maximum = tl.full([ROWS], float("-inf"), tl.float32)
    folded_sums = tl.zeros([ROWS, 16], tl.float32)
    folded = tl.zeros([ROWS, SIZE], tl.float32)
    for segment in range(first_segment, end_segment):
        maximum = tl.full([ROWS], float("-inf"), tl.float32)
        sums = tl.zeros([ROWS, 16], tl.float32)
        output = tl.zeros([ROWS, SIZE], tl.float32)
        end = tl.minimum((segment + 1) * (SEGMENT_TOKENS // BLOCK_TOKENS), last_position // BLOCK_TOKENS + 1)
        for number in tl.range(segment * (SEGMENT_TOKENS // BLOCK_TOKENS), end, num_stages=STAGES):
            block = tl.load(table + number).to(tl.int64) * KV_HEADS + kv_head
            start = number * BLOCK_TOKENS
            keys, key_scales = k_ptr + block * (BLOCK_TOKENS * DIM), k_scales_ptr + block * DIM
            s = tl.zeros([ROWS, 32], tl.float32)
            s = scored(s, q_codes_ptr, q_scales_ptr, row_at, live, keys, key_scales, DIM, PLANES)
            if PAIRS > 0:
                turn_at = start * (DIM // 2)
                s = with_bias(
                    s, terms_ptr, row_at, live, cosines_ptr + turn_at, sines_ptr + turn_at,
                    turns_ptr + kv_head * 2 * PAIRS * BLOCK_TOKENS, pairs_ptr + kv_head * PAIRS,
                    tl.load(num_pairs_ptr + kv_head), PAIRS,
                )  # fmt: skip
            seen = (start + t)[None, :] <= position[:, None]
            begun = start <= position
            top = tl.maximum(maximum, tl.max(tl.where(seen, s, float("-inf")), 1))
            top = tl.where(begun, top, maximum)
            weights = tl.where(seen, exponential(s - top[:, None]), 0.0)
            correction = tl.where(begun, exponential(maximum - top), 1.0)
            added = tl.fma(sums, tl.broadcast_to(correction[:, None], [ROWS, 16]), add_halves(weights))
            sums = tl.where(begun[:, None], added, sums)
            maximum = top
            value_scale = tl.load(v_scales_ptr + block * BLOCK_TOKENS + t).to(tl.float32)
            weights = tl.where(seen, weights * value_scale[None, :], 0.0)
            value_at = (block * DIM + d)[None, :] * BLOCK_TOKENS + t[:, None]
            values = tl.load(v_ptr + value_at, mask=(d < DIM)[None, :], other=0)
            output = accumulate(output, weights, values, correction, PLANES)
        # Rows before this segment see none of it; the first segment has nothing before it.
        fresh = segment == first_segment
        joined = (segment * SEGMENT_TOKENS <= position) & (segment != first_segment)
        top = tl.where(maximum > folded_maximum, maximum, folded_maximum)
        keep, take = exponential(folded_maximum - top), exponential(maximum - top)
        shape: tl.constexpr = folded.shape
        new = tl.fma(output, tl.broadcast_to(take[:, None], shape), folded * keep[:, None])
        new_sums = tl.fma(sums, tl.broadcast_to(take[:, None], [ROWS, 16]), folded_sums * keep[:, None])
        folded = tl.where(joined[:, None], new, tl.where(fresh, output, folded))
        folded_sums = tl.where(joined[:, None], new_sums, tl.where(fresh, sums, folded_sums))
        folded_maximum = tl.where(joined, top, tl.where(fresh, maximum, folded_maximum))
    to = (state.to(tl.int64) + row) * KV_HEADS + kv_head
    tl.store(outputs_ptr + to[:, None] * DIM + d[None, :], folded, mask=live[:, None] & (d < DIM)[None, :])
    tl.store(sums_ptr + to[:, None] * 16 + tl.arange(0, 16)[None, :], folded_sums, mask=live[:, None])
    tl.store(maxima_ptr + to, folded_maximum, mask=live)


@triton.jit(do_not_specialize=["rows"])
def fold(
    states_ptr,
    rows,
    positions_ptr,
    outputs_ptr,
    sums_ptr,
    maxima_ptr,
    codes_ptr,
    scales_ptr,
    code_sums_ptr,
    capacity,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    SIZE: tl.constexpr,
    PLANES: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Fold the states of ROWS rows' segments in order, divide by the sums, quantize. Grid: (row tiles, heads).

    states: int32 [rows][4]: where the row's first state begins, how many it has, and how many state rows apart they
    are. Where there are several, state i is that of segment i.
    """
    row, head = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1)
    live = row < rows
    query_heads: tl.constexpr = HEADS // KV_HEADS
    state = tl.load(states_ptr + row * 4, mask=live, other=0)
    count = tl.load(states_ptr + row * 4 + 1, mask=live, other=1)
    apart = tl.load(states_ptr + row * 4 + 2, mask=live, other=0)
    position = tl.load(positions_ptr + row, mask=live, other=0)
    d = tl.arange(0, SIZE)[None, :]
    lane = tl.arange(0, 16)[None, :]
    first = (state.to(tl.int64) + head % query_heads) * KV_HEADS + head // query_heads
    inside = live[:, None] & (d < DIM)
    output = tl.load(outputs_ptr + first[:, None] * DIM + d, mask=inside, other=0.0)
    sums = tl.load(sums_ptr + first[:, None] * 16 + lane, mask=live[:, None], other=1.0)
    maximum = tl.load(maxima_ptr + first, mask=live, other=0.0)
    for segment in range(1, tl.max(count, 0)):
        joined = live & (segment < count) & (segment * SEGMENT_TOKENS <= position)
        at = tl.where(joined, first + segment * apart * KV_HEADS, first)
        later = tl.load(maxima_ptr + at, mask=live, other=0.0)
        top = tl.where(later > maximum, later, maximum)
        keep, take = exponential(maximum - top)[:, None], exponential(later - top)[:, None]
        added = tl.load(outputs_ptr + at[:, None] * DIM + d, mask=inside, other=0.0)
        new = tl.fma(added, tl.broadcast_to(take, [ROWS, SIZE]), output * keep)
        output = tl.where(joined[:, None], new, output)
        added_sums = tl.load(sums_ptr + at[:, None] * 16 + lane, mask=live[:, None], other=0.0)
        new_sums = tl.fma(added_sums, tl.broadcast_to(take, [ROWS, 16]), sums * keep)
        sums = tl.where(joined[:, None], new_sums, sums)
        maximum = tl.where(joined, top, maximum)
    inverse = tl.div_rn(tl.full([ROWS], 1.0, tl.float32), fold_lanes(sums))
    groups: tl.constexpr = SIZE // 32
    group = tl.arange(0, groups)[None, :]
    mask = live[:, None] & (group < DIM // 32)
    both: tl.constexpr = [ROWS, groups]
    out_group = tl.reshape(tl.broadcast_to(head * (DIM // 32) + group, both), [ROWS * groups])
    out_row = tl.reshape(tl.broadcast_to(row[:, None], both), [ROWS * groups])
    output = tl.reshape(output * inverse[:, None], [ROWS * groups, 32])
    store_groups(
        output, codes_ptr, scales_ptr, code_sums_ptr, out_group, out_row, capacity,
        tl.reshape(mask, [ROWS * groups]), PLANES, False,
    )  # fmt: skip
