"""The language-model head's second pass: the panels with a row's largest logits get the activations' low plane.

The first pass is `products.linear`, which also leaves each panel's largest logit (docs/decisions/011).
"""

from __future__ import annotations

import triton
import triton.language as tl

from antiphon.ops.triton.products import product_of_planes


@triton.jit(do_not_specialize=["maxima_stride", "num_panels"])
def choose_panels(maxima_ptr, maxima_stride, chosen_ptr, num_panels, COUNT: tl.constexpr, SIZE: tl.constexpr):
    """The COUNT panels with the largest maxima and, of equal ones, the last, to chosen [rows][COUNT]. Grid: (rows,).

    SIZE: at least num_panels, a power of two. Two binary searches: for the COUNT-th largest maximum, as an integer that
    orders as the floats do; then for where the panels that equal it begin to be taken.
    """
    row = tl.program_id(0)
    panel = tl.arange(0, SIZE)
    inside = panel < num_panels
    bits = tl.load(maxima_ptr + row * maxima_stride + panel, mask=inside, other=0.0).to(tl.int32, bitcast=True)
    order = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
    order = tl.where(inside, order, -(1 << 40))
    low = tl.full([1], -(1 << 31), tl.int64)
    high = tl.full([1], 1 << 31, tl.int64)
    for _ in range(32):
        middle = (low + high) >> 1
        enough = tl.sum((order >= middle).to(tl.int32), 0) >= COUNT
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle)
    equal = order == low
    missing = COUNT - tl.sum((order > low).to(tl.int32), 0)
    first = tl.full([1], 0, tl.int32)
    end = tl.full([1], SIZE, tl.int32)
    for _ in range(20):
        middle = (first + end) >> 1
        enough = tl.sum((equal & (panel >= middle)).to(tl.int32), 0) >= missing
        first = tl.where(enough, middle, first)
        end = tl.where(enough, end, middle)
    taken = (order > low) | (equal & (panel >= first))
    rank = tl.cumsum(taken.to(tl.int32), 0) - 1
    tl.store(chosen_ptr + row * COUNT + rank, panel, mask=taken)


@triton.jit
def correct_panels(
    chosen_ptr,
    codes_ptr,
    a_scales_ptr,
    sums_ptr,
    capacity,
    w_ptr,
    scales_ptr,
    mins_ptr,
    num_channels,
    logits_ptr,
    vocabulary,
    COUNT: tl.constexpr,
    GROUPS: tl.constexpr,
    BITS: tl.constexpr,
    LOW_START: tl.constexpr,
    HIGH_START: tl.constexpr,
    HAS_MINS: tl.constexpr,
    PANELS: tl.constexpr,
    TOKENS: tl.constexpr,
    STAGES: tl.constexpr,
    EIGHTS: tl.constexpr,
):
    """Adds the low plane's product to PANELS chosen panels of one row. Grid: (tiles of chosen panels, rows).

    A tensor instruction multiplies several tokens: all TOKENS columns are the same row, and one is stored.
    """
    row = tl.program_id(1)
    i = tl.arange(0, PANELS * 32)
    number = tl.program_id(0) * PANELS + i // 32
    panel = tl.load(chosen_ptr + row * COUNT + number, mask=number < COUNT, other=0)
    token = row + tl.zeros([TOKENS], tl.int32)
    low = tl.zeros([PANELS * 32, TOKENS], tl.float32)
    high = tl.zeros([PANELS * 32, TOKENS], tl.float32)
    low, high = product_of_planes(
        low, high, (panel // 2) * 32 + i % 32, token, codes_ptr + capacity * 32, a_scales_ptr, sums_ptr + capacity,
        capacity, w_ptr, scales_ptr, mins_ptr, num_channels, GROUPS, 2, False, BITS, LOW_START, HIGH_START, HAS_MINS,
        STAGES, EIGHTS,
    )  # fmt: skip
    added = tl.where((panel % 2 == 1)[:, None], high, low) * (1.0 / 256.0)  # the scale is that of the high plane
    channel = panel * 32 + i % 32
    to = logits_ptr + row.to(tl.int64) * vocabulary + channel[:, None] + tl.zeros([PANELS * 32, TOKENS], tl.int32)
    mask = ((number < COUNT) & (channel < vocabulary))[:, None] & (tl.arange(0, TOKENS) == 0)[None, :]
    tl.store(to, tl.load(to, mask=mask, other=0.0) + added, mask=mask)
