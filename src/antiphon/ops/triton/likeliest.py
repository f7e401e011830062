"""The draw from a row's likeliest tokens: top_k, and the greedy choice, which is one of them. See `sampling`."""

from __future__ import annotations

import triton
import triton.language as tl

from antiphon.ops.triton.arithmetic import exponential
from antiphon.ops.triton.sampling import FIELDS, NO_TOKEN, RUN, float_parameter, is_masked, uniform


@triton.jit
def at_place(values, place, n):
    """values[n], where `place` counts its elements."""
    return tl.sum(tl.where(place == n, values, 0.0), 0)


@triton.jit
def draw_likeliest(
    logits_ptr,
    vocabulary,
    parameters_ptr,
    maxima_ptr,
    faults_ptr,
    tokens_ptr,
    RUNS: tl.constexpr,
    ALL_RUNS: tl.constexpr,
    SPAN: tl.constexpr,
    MASKED: tl.constexpr,
    MOST: tl.constexpr,
):
    """A row with top_k: its likeliest tokens one after the other, cut by top_p and min_p. Grid: (rows,).

    One token is the greedy choice. MOST: the largest top_k, a power of two.
    """
    row = tl.program_id(0)
    count = tl.load(parameters_ptr + row * FIELDS)
    if count > 0:
        other = tl.arange(0, ALL_RUNS)
        maxima = tl.load(maxima_ptr + row * RUNS + other, mask=other < RUNS, other=float("-inf"))
        faults = tl.max(tl.load(faults_ptr + row * RUNS + other, mask=other < RUNS, other=0), 0)
        top = tl.max(maxima, 0)
        k = tl.arange(0, MOST)
        values = tl.full([MOST], float("-inf"), tl.float32)
        tokens = tl.full([MOST], NO_TOKEN, tl.int32)
        last_value = tl.max(tl.full([1], float("inf"), tl.float32), 0)
        last_token = tl.max(tl.full([1], -1, tl.int32), 0)
        count = tl.where(faults == 0, count, 0)
        for n in range(0, count):
            value = tl.max(maxima, 0)
            run = tl.min(tl.where(maxima == value, other, RUNS - 1), 0)
            token = run * RUN + tl.arange(0, SPAN)
            inside = token < vocabulary
            x = tl.load(logits_ptr + row.to(tl.int64) * vocabulary + token, mask=inside, other=float("-inf"))
            x = tl.where(is_masked(parameters_ptr, row, True, token, MASKED), float("-inf"), x)
            after = tl.where(value < last_value, -1, last_token)
            found = tl.min(tl.where((x == value) & (token > after), token, NO_TOKEN), 0)
            values, tokens = tl.where(k == n, value, values), tl.where(k == n, found, tokens)
            left = (x < value) | ((x == value) & (token > found))
            maxima = tl.where(other == run, tl.max(tl.where(left, x, float("-inf")), 0), maxima)
            last_value, last_token = value, found
        drawn = _draw_from(values, tokens, k, count, top, parameters_ptr, row)
        drawn = tl.where(drawn < 0, -2, drawn)
        tl.store(tokens_ptr + row, tl.where(faults != 0, -1, drawn))


@triton.jit
def _draw_from(values, tokens, k, count, top, parameters_ptr, row):
    """One of the first `count` candidates, which are in order; -1 where there is none."""
    here = row + tl.zeros([1], tl.int32)
    scale = float_parameter(parameters_ptr, row, True, 1)
    top_p, min_p = float_parameter(parameters_ptr, row, True, 2), float_parameter(parameters_ptr, row, True, 3)
    is_token = values > float("-inf")
    weights = tl.where(is_token, exponential((values - top) * scale), 0.0)
    total = tl.sum(tl.zeros([1], tl.float64), 0)
    for n in range(0, count):
        total += at_place(weights, k, n).to(tl.float64)
    kept = tl.sum(tl.zeros([1], tl.float64), 0)
    number = tl.max(tl.zeros([1], tl.int32), 0)
    is_cut = number
    first, previous = at_place(weights, k, 0), at_place(weights, k, 0)
    for n in range(0, count):
        weight = at_place(weights, k, n)
        is_cut = is_cut | (tl.sum((is_token & (k == n)).to(tl.int32), 0) == 0).to(tl.int32)
        is_lighter = (n > 0) & (weight != previous)
        ends = (kept >= top_p.to(tl.float64) * total) | (weight < min_p * first)
        is_cut = is_cut | (is_lighter & ends).to(tl.int32)
        kept = tl.where(is_cut == 0, kept + weight.to(tl.float64), kept)
        number += 1 - is_cut
        previous = weight
    left = tl.sum(uniform(parameters_ptr, here, here >= 0), 0) * kept
    tokens = tl.where(k < number, tokens, NO_TOKEN)
    drawn, is_drawn = number * 0 - 1, number * 0
    for _ in range(0, number):
        token = tl.min(tl.where(tokens > drawn, tokens, NO_TOKEN), 0)
        weight = tl.sum(tl.where(tokens == token, weights, 0.0), 0).to(tl.float64)
        drawn = tl.where(is_drawn == 0, token, drawn)
        left = tl.where(is_drawn == 0, left - weight, left)
        is_drawn = is_drawn | (left < 0.0).to(tl.int32)
    return drawn
