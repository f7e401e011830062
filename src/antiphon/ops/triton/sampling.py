"""Kernels that draw tokens, with the bits of native/sampler.cpp and native/nucleus.cpp.

A row of logits is divided into runs of 1,024 tokens. Sums of a run are taken in 16 lanes, and sums over runs in float64
in the order of the runs. `summarize` finds the largest logit of each run, `weigh` the weights exp((logit - largest) /
temperature) and their sums. A row without filters, or with top_p or min_p, is drawn by `draw_by_weight`, after `narrow`
and `keep` have found which weights are kept. A row with top_k, or at temperature zero, is drawn in `likeliest`.

A row's parameters are int32 [16]: how many of the likeliest tokens to keep (0: all), the bits of 1 / temperature, top_p
and min_p as float32, the low and high words of the seed, the choice, the low and high words of the position, and up to
seven masked tokens (-1: none). The token that is drawn is -1 where the row holds what is not a finite number, and -2
where every token is masked.
"""

from __future__ import annotations

import triton
import triton.language as tl

from antiphon.ops.triton.arithmetic import exponential, fold_lanes

RUN = tl.constexpr(1024)  # kShard of native/kernels.h
PIVOTS = tl.constexpr(4)  # kPivots
FIELDS = tl.constexpr(16)  # of a row's parameters
MASKED_AT = tl.constexpr(9)  # the first of the masked tokens
LIGHTEST = tl.constexpr(1e-37)  # kLightest of native/nucleus.cpp
NO_TOKEN = tl.constexpr(1 << 30)
WORD = tl.constexpr(0xFFFFFFFF)


@triton.jit
def parameter(parameters_ptr, row, live, FIELD: tl.constexpr):
    return tl.load(parameters_ptr + row * FIELDS + FIELD, mask=live, other=0)


@triton.jit
def float_parameter(parameters_ptr, row, live, FIELD: tl.constexpr):
    return parameter(parameters_ptr, row, live, FIELD).to(tl.float32, bitcast=True)


@triton.jit
def word(parameters_ptr, row, live, FIELD: tl.constexpr):
    """32 bits without a sign, in int64."""
    return parameter(parameters_ptr, row, live, FIELD).to(tl.int64) & WORD


@triton.jit
def is_masked(parameters_ptr, row, live, token, MASKED: tl.constexpr):
    """Whether each token is one of the row's first MASKED masked ones; shapes of `row` and `token` broadcast."""
    masked = token < 0
    for i in tl.static_range(MASKED):
        masked = masked | (token == tl.load(parameters_ptr + row * FIELDS + MASKED_AT + i, mask=live, other=-1))
    return masked


@triton.jit
def summarize(
    logits_ptr,
    vocabulary,
    num_units,
    parameters_ptr,
    maxima_ptr,
    faults_ptr,
    RUNS: tl.constexpr,
    SPAN: tl.constexpr,
    MASKED: tl.constexpr,
    UNITS: tl.constexpr,
):
    """The largest logit of each run, and whether one is not a finite number. Grid: (tiles of UNITS runs,).

    Unit u is run u % RUNS of row u / RUNS. SPAN: tokens to look at, a power of two: 1,024 or, with fewer tokens, less.
    """
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    live = unit < num_units
    row, run = unit // RUNS, unit % RUNS
    token = run[:, None] * RUN + tl.arange(0, SPAN)[None, :]
    inside = live[:, None] & (token < vocabulary)
    x = tl.load(logits_ptr + row.to(tl.int64)[:, None] * vocabulary + token, mask=inside, other=0.0)
    faults = tl.max((x * 0.0 != 0.0).to(tl.int32), 1)
    shown = inside & (is_masked(parameters_ptr, row[:, None], live[:, None], token, MASKED) == 0)
    tl.store(maxima_ptr + unit, tl.max(tl.where(shown, x, float("-inf")), 1), mask=live)
    tl.store(faults_ptr + unit, faults, mask=live)


@triton.jit
def weigh(
    logits_ptr,
    vocabulary,
    num_units,
    parameters_ptr,
    maxima_ptr,
    weights_ptr,
    sums_ptr,
    largest_ptr,
    RUNS: tl.constexpr,
    ALL_RUNS: tl.constexpr,
    LINES: tl.constexpr,
    MASKED: tl.constexpr,
    UNITS: tl.constexpr,
):
    """Every token's weight, and each run's sum of weights and weight of its largest logit. Grid as for `summarize`.

    A masked token is in the sums with next to nothing, as on the CPU; its own weight is -1, so that it is never drawn.
    ALL_RUNS: RUNS rounded up to a power of two. LINES: runs of 16 tokens to look at, at most 64.
    """
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    live = unit < num_units
    row, run = unit // RUNS, unit % RUNS
    other = tl.arange(0, ALL_RUNS)[None, :]
    maxima = tl.load(maxima_ptr + row[:, None] * RUNS + other, mask=live[:, None] & (other < RUNS), other=float("-inf"))
    top = tl.max(maxima, 1)
    scale = float_parameter(parameters_ptr, row, live, 1)
    begin = row.to(tl.int64) * vocabulary
    sums = tl.zeros([UNITS, 16], tl.float32)
    for line in range(LINES):
        token = run[:, None] * RUN + line * 16 + tl.arange(0, 16)[None, :]
        inside = live[:, None] & (token < vocabulary)
        x = tl.load(logits_ptr + begin[:, None] + token, mask=inside, other=0.0)
        masked = is_masked(parameters_ptr, row[:, None], live[:, None], token, MASKED)
        x = tl.where(masked, float("-inf"), x)
        weights = tl.where(inside, exponential((x - top[:, None]) * scale[:, None]), 0.0)
        tl.store(weights_ptr + begin[:, None] + token, tl.where(masked, -1.0, weights), mask=inside)
        sums += weights
    own = tl.load(maxima_ptr + unit, mask=live, other=0.0)
    tl.store(sums_ptr + unit, fold_lanes(sums), mask=live)
    tl.store(largest_ptr + unit, exponential((own - top) * scale), mask=live)


@triton.jit
def total_weight(sums_ptr, row, live, RUNS: tl.constexpr):
    total = tl.zeros(row.shape, tl.float64)
    for run in range(RUNS):
        total += tl.load(sums_ptr + row * RUNS + run, mask=live, other=0.0).to(tl.float64)
    return total


@triton.jit
def first_range(total, top_p, vocabulary):
    """The bits of two weights: the floor under the kept ones is at least the first, and below the second."""
    spare = 0.5 * (total - top_p.to(tl.float64) * total) / tl.full(total.shape, vocabulary, tl.float64)
    lightest = tl.full(total.shape, LIGHTEST, tl.float32)
    spare = tl.minimum(tl.maximum(spare.to(tl.float32), lightest), 1.0)
    is_narrow = top_p >= 1.0
    low = tl.where(is_narrow, lightest, spare).to(tl.int32, bitcast=True)
    one = tl.full(total.shape, 1.0, tl.float32).to(tl.int32, bitcast=True)
    return low, tl.where(is_narrow, low, one) + 1


@triton.jit
def pivot(low, high, i):
    """The bits of pivot i of the range."""
    return low + ((high - low).to(tl.int64) * (i + 1) // (PIVOTS + 1)).to(tl.int32)


@triton.jit
def narrowed(low, high, total, top_p, pivot_sums_ptr, row, live, RUNS: tl.constexpr):
    """The range after a walk, whose sums are [rows][PIVOTS][RUNS]."""
    i = tl.arange(0, PIVOTS)[None, :]
    sums = tl.zeros([row.shape[0], PIVOTS], tl.float64)
    for run in range(RUNS):
        at = pivot_sums_ptr + (row[:, None] * PIVOTS + i) * RUNS + run
        sums += tl.load(at, mask=live[:, None], other=0.0).to(tl.float64)
    enough = top_p.to(tl.float64) * total
    reached = tl.sum((sums >= enough[:, None]).to(tl.int32), 1)
    new_high = tl.where(reached < PIVOTS, pivot(low, high, reached), high)
    new_low = tl.where(reached > 0, pivot(low, high, reached - 1), low)
    is_open = high - low > 1
    return tl.where(is_open, new_low, low), tl.where(is_open, new_high, high)


@triton.jit
def range_after(
    walk, row, live, vocabulary, parameters_ptr, sums_ptr, ranges_ptr, pivot_sums_ptr, num_rows, RUNS: tl.constexpr
):
    """The range after `walk` walks, which take turns with two places in `ranges` and `pivot_sums`."""
    total = total_weight(sums_ptr, row, live, RUNS)
    top_p = float_parameter(parameters_ptr, row, live, 2)
    low, high = first_range(total, top_p, vocabulary)
    if walk > 0:
        before = (walk - 1) % 2
        at = ranges_ptr + (before * num_rows + row) * 2
        low, high = tl.load(at, mask=live, other=0), tl.load(at + 1, mask=live, other=1)
        sums = pivot_sums_ptr + before * num_rows * PIVOTS * RUNS
        low, high = narrowed(low, high, total, top_p, sums, row, live, RUNS)
    return low, high


@triton.jit
def sums_at_least(weights_ptr, begin, run, vocabulary, live, bounds, LINES: tl.constexpr):
    """The sum of the weights of each unit's run that are at least each of its bounds [units, n]: [units, n]."""
    units: tl.constexpr = bounds.shape[0]
    count: tl.constexpr = bounds.shape[1]
    sums = tl.zeros([units, count, 16], tl.float32)
    for line in range(LINES):
        token = run[:, None] * RUN + line * 16 + tl.arange(0, 16)[None, :]
        inside = live[:, None] & (token < vocabulary)
        weights = tl.load(weights_ptr + begin[:, None] + token, mask=inside, other=0.0)[:, None, :]
        sums += tl.where(weights >= bounds[:, :, None], weights, 0.0)
    return tl.reshape(fold_lanes(tl.reshape(sums, [units * count, 16])), [units, count])


@triton.jit(do_not_specialize=["walk"])
def narrow(
    walk,
    vocabulary,
    num_units,
    num_rows,
    parameters_ptr,
    weights_ptr,
    sums_ptr,
    largest_ptr,
    ranges_ptr,
    pivot_sums_ptr,
    RUNS: tl.constexpr,
    LINES: tl.constexpr,
    UNITS: tl.constexpr,
):
    """One walk of the search for the floor under the kept weights: sums at four pivots. Grid as for `summarize`.

    ranges: int32 [2][num_rows][2]; pivot_sums: float32 [2][num_rows][PIVOTS][RUNS].
    """
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    live = unit < num_units
    row, run = unit // RUNS, unit % RUNS
    low, high = range_after(
        walk, row, live, vocabulary, parameters_ptr, sums_ptr, ranges_ptr, pivot_sums_ptr, num_rows, RUNS
    )
    here = walk % 2
    at = ranges_ptr + (here * num_rows + row) * 2
    tl.store(at, low, mask=live & (run == 0))
    tl.store(at + 1, high, mask=live & (run == 0))
    i = tl.arange(0, PIVOTS)[None, :]
    bounds = pivot(low[:, None], high[:, None], i).to(tl.float32, bitcast=True)
    least = pivot(low, high, 0).to(tl.float32, bitcast=True)
    reached = live & (high - low > 1) & (tl.load(largest_ptr + unit, mask=live, other=0.0) >= least)
    begin = row.to(tl.int64) * vocabulary
    sums = sums_at_least(weights_ptr, begin, run, vocabulary, reached, bounds, LINES)
    to = pivot_sums_ptr + ((here * num_rows + row[:, None]) * PIVOTS + i) * RUNS + run[:, None]
    tl.store(to, tl.where(reached[:, None], sums, 0.0), mask=live[:, None])


@triton.jit(do_not_specialize=["walks"])
def keep(
    walks,
    vocabulary,
    num_units,
    num_rows,
    parameters_ptr,
    weights_ptr,
    sums_ptr,
    largest_ptr,
    ranges_ptr,
    pivot_sums_ptr,
    kept_ptr,
    floors_ptr,
    RUNS: tl.constexpr,
    LINES: tl.constexpr,
    UNITS: tl.constexpr,
):
    """Each row's floor after the walks, and each run's sum of the weights that reach it. Grid as before."""
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    live = unit < num_units
    row, run = unit // RUNS, unit % RUNS
    low, _ = range_after(
        walks, row, live, vocabulary, parameters_ptr, sums_ptr, ranges_ptr, pivot_sums_ptr, num_rows, RUNS
    )
    floor = tl.maximum(low.to(tl.float32, bitcast=True), float_parameter(parameters_ptr, row, live, 3))
    reached = live & (tl.load(largest_ptr + unit, mask=live, other=0.0) >= floor)
    begin = row.to(tl.int64) * vocabulary
    sums = tl.reshape(sums_at_least(weights_ptr, begin, run, vocabulary, reached, floor[:, None], LINES), [UNITS])
    tl.store(kept_ptr + unit, tl.where(reached, sums, 0.0), mask=live)
    tl.store(floors_ptr + row, floor, mask=live & (run == 0))


@triton.jit
def uniform(parameters_ptr, row, live):
    """A float64 in [0, 1): Philox4x32-10 of the seed, the choice and the position (Salmon et al., SC 2011)."""
    k0, k1 = word(parameters_ptr, row, live, 4), word(parameters_ptr, row, live, 5)
    c0, c1 = word(parameters_ptr, row, live, 7), word(parameters_ptr, row, live, 8)
    c2, c3 = word(parameters_ptr, row, live, 6), tl.zeros(row.shape, tl.int64)
    for _ in tl.static_range(10):
        left, right = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # the sign bit is shifted in, and masked out again
        c0, c2 = ((right >> 32) & WORD) ^ c1 ^ k0, ((left >> 32) & WORD) ^ c3 ^ k1
        c1, c3 = right & WORD, left & WORD
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    bits = (c0 << 21) | (c1 >> 11)
    return bits.to(tl.float64) * 1.1102230246251565e-16  # 2^-53


@triton.jit
def run_weight(run, row, live, is_filtered, sums_ptr, kept_ptr, maxima_ptr, RUNS: tl.constexpr):
    """What a run weighs in the draw, in float64: zero where nothing of it can be drawn."""
    at = row * RUNS + run
    has_token = live & (tl.load(maxima_ptr + at, mask=live, other=0.0) > float("-inf"))
    whole = tl.load(sums_ptr + at, mask=has_token, other=0.0)
    kept = tl.load(kept_ptr + at, mask=live, other=0.0)
    return tl.where(is_filtered, kept, whole).to(tl.float64)


@triton.jit
def draw_by_weight(
    vocabulary,
    num_rows,
    parameters_ptr,
    maxima_ptr,
    faults_ptr,
    weights_ptr,
    sums_ptr,
    kept_ptr,
    floors_ptr,
    tokens_ptr,
    RUNS: tl.constexpr,
    LINES: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Rows without top_k: the run that holds the draw, then the token in it. Grid: (tiles of ROWS rows,)."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < num_rows
    live = live & (parameter(parameters_ptr, row, live, 0) == 0)
    top_p, min_p = float_parameter(parameters_ptr, row, live, 2), float_parameter(parameters_ptr, row, live, 3)
    is_filtered = live & ((top_p < 1.0) | (min_p > 0.0))
    floor = tl.load(floors_ptr + row, mask=is_filtered, other=0.0)
    place = uniform(parameters_ptr, row, live)
    total, parts = tl.zeros([ROWS], tl.float64), tl.zeros([ROWS], tl.float64)
    faults = tl.zeros([ROWS], tl.int32)
    for run in range(RUNS):
        weight = run_weight(run, row, live, is_filtered, sums_ptr, kept_ptr, maxima_ptr, RUNS)
        total += weight
        parts += place * weight
        faults = faults | tl.load(faults_ptr + row * RUNS + run, mask=live, other=0)
    left = tl.where(is_filtered, parts, place * total)
    chosen = tl.full([ROWS], -1, tl.int32)
    chosen_weight = tl.zeros([ROWS], tl.float64)
    is_found = row < 0
    for run in range(RUNS):
        weight = run_weight(run, row, live, is_filtered, sums_ptr, kept_ptr, maxima_ptr, RUNS)
        is_later = (weight != 0.0) & (chosen >= 0)
        is_found = is_found | (is_later & (left < chosen_weight))
        left = tl.where(is_later & (is_found == 0), left - chosen_weight, left)
        moves = (weight != 0.0) & (is_found == 0)
        chosen, chosen_weight = tl.where(moves, run, chosen), tl.where(moves, weight, chosen_weight)
    drawn = tl.where(faults != 0, -1, tl.full([ROWS], -2, tl.int32))
    is_drawn = (chosen < 0) | (faults != 0)
    begin = row.to(tl.int64) * vocabulary
    for i in range(LINES * 16):
        token = chosen * RUN + i
        inside = live & (is_drawn == 0) & (token < vocabulary)
        weight = tl.load(weights_ptr + begin + token, mask=inside, other=-1.0)
        takes = inside & (weight >= floor)
        drawn = tl.where(takes, token, drawn)
        left = tl.where(takes, left - weight.to(tl.float64), left)
        is_drawn = is_drawn | (takes & (left < 0.0))
    tl.store(tokens_ptr + row, drawn, mask=live)
