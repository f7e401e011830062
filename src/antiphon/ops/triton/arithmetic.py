"""Arithmetic that all kernels share, the same as native/generic/elementwise-inl.h, operation by operation.

Every multiply-add is fused where the native source says fma, and only there: kernels are compiled with
`enable_fp_fusion=False`. Divisions and square roots round correctly (`div_rn`, `sqrt_rn`). Sums that the native kernels
take in 16 lanes are taken in the same 16 lanes.
"""

from __future__ import annotations

import triton
import triton.language as tl

ROUNDER = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding it rounds a float32 to an integer, to nearest even
NARROWEST = tl.constexpr(1e-36)  # below it a group is stored as zero
OF_127 = tl.constexpr(0.007874015718698502)  # 1 / 127 in float32


@triton.jit
def round_to_even(x):
    """To the nearest integer, as float32; |x| must be below 2^22."""
    return (x + ROUNDER) - ROUNDER


@triton.jit
def fold_lanes(x):
    """[rows, 16] → [rows]: halves are added onto each other, 16 → 8 → 4 → 2 → 1."""
    rows: tl.constexpr = x.shape[0]
    a, b = tl.split(tl.permute(tl.reshape(x, [rows, 2, 8]), [0, 2, 1]))
    c, d = tl.split(tl.permute(tl.reshape(a + b, [rows, 2, 4]), [0, 2, 1]))
    e, f = tl.split(tl.permute(tl.reshape(c + d, [rows, 2, 2]), [0, 2, 1]))
    g, h = tl.split(e + f)
    return g + h


@triton.jit
def add_halves(x):
    """[rows, 32] → [rows, 16]: column i plus column i + 16."""
    rows: tl.constexpr = x.shape[0]
    a, b = tl.split(tl.permute(tl.reshape(x, [rows, 2, 16]), [0, 2, 1]))
    return a + b


@triton.jit
def exponential(x):
    """e^x for x in [-87.3, 88.3] (clamped; not-a-number stays), within 2 ulp."""
    x = tl.where(x < -87.3, -87.3, x)  # comparisons are false for not-a-number, which minimum and maximum would drop
    x = tl.where(x > 88.3, 88.3, x)
    shifted = x * 1.44269504 + ROUNDER
    n = shifted - ROUNDER
    r = tl.fma(n, tl.full(x.shape, -0.693145752, tl.float32), x)
    r = tl.fma(n, tl.full(x.shape, -1.42860677e-6, tl.float32), r)
    p = tl.fma(
        tl.full(x.shape, 0.001388888888888889, tl.float32), r, tl.full(x.shape, 0.008333333333333333, tl.float32)
    )
    p = tl.fma(p, r, tl.full(x.shape, 0.041666666666666664, tl.float32))
    p = tl.fma(p, r, tl.full(x.shape, 0.16666666666666666, tl.float32))
    p = tl.fma(p, r, tl.full(x.shape, 0.5, tl.float32))
    p = tl.fma(p, r, tl.full(x.shape, 1.0, tl.float32))
    p = tl.fma(p, r, tl.full(x.shape, 1.0, tl.float32))
    # The low bits of `shifted` hold n; the rest of it is shifted out.
    return p * ((shifted.to(tl.int32, bitcast=True) + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def to_codes(x, largest, UNITS: tl.constexpr):
    """x [n, m] as int32 codes from -127 * UNITS to 127 * UNITS; `largest` [n] is each row's largest magnitude."""
    usable = largest > NARROWEST
    divisor = tl.where(usable, largest, 1.0)
    inverse = tl.where(usable, tl.div_rn(tl.full(largest.shape, 127.0, tl.float32), divisor), 0.0)
    return round_to_even(tl.minimum(tl.maximum(x * inverse[:, None], -127.0), 127.0) * UNITS).to(tl.int32)


@triton.jit
def quantize(x, UNITS: tl.constexpr):
    """Groups [n, 32] → int32 codes [n, 32], and scales [n] of 8-bit codes, not-a-number where a value is not finite.

    UNITS: 1 for 8-bit codes, 256 for 16-bit ones, whose scale is 1/256 of that of 8-bit ones.
    """
    largest = tl.max(tl.abs(x), 1)
    codes = to_codes(x, largest, UNITS)
    return codes, largest * OF_127 + tl.sum(x * 0.0, 1)


@triton.jit
def planes_of(codes):
    """16-bit codes as int8 planes, high and low: codes = 256 * high + low."""
    high = (codes + 128) >> 8
    return high.to(tl.int8), (codes - high * 256).to(tl.int8)


@triton.jit
def store_groups(
    x, codes_ptr, scales_ptr, sums_ptr, group, row, capacity, mask, PLANES: tl.constexpr, APART: tl.constexpr
):
    """Quantize groups x [n, 32], of group number group[i] and row row[i], into the planes of a buffer (see `norms`)."""
    k = tl.arange(0, 32)[None, :]
    at = group * (PLANES * capacity) + row
    scale_at = group * capacity + row
    if PLANES == 1:
        codes, scales = quantize(x, 1)
        tl.store(codes_ptr + at[:, None] * 32 + k, codes.to(tl.int8), mask=mask[:, None])
        tl.store(sums_ptr + at, tl.sum(codes, 1), mask=mask)
    else:
        codes, scales = quantize(x, 256)
        high, low = planes_of(codes)
        tl.store(codes_ptr + at[:, None] * 32 + k, high, mask=mask[:, None])
        tl.store(codes_ptr + (at + capacity)[:, None] * 32 + k, low, mask=mask[:, None])
        if APART:
            tl.store(sums_ptr + at, tl.sum(high.to(tl.int32), 1), mask=mask)
            tl.store(sums_ptr + at + capacity, tl.sum(low.to(tl.int32), 1), mask=mask)
        else:
            tl.store(sums_ptr + scale_at, tl.sum(codes, 1), mask=mask)
            scales *= 1.0 / 256.0
    tl.store(scales_ptr + scale_at, scales, mask=mask)


@triton.jit
def inverse_rms(x_ptr, at, mask, epsilon, WIDTH: tl.constexpr):
    """1 / sqrt(mean(x²) + epsilon) [n] of n rows of WIDTH values that begin at[i] after x_ptr; WIDTH: of whole 16s."""
    rows: tl.constexpr = at.shape[0]
    lane = tl.arange(0, 16)[None, :]
    squares = tl.zeros([rows, 16], tl.float32)
    for i in range(WIDTH // 16):
        x = tl.load(x_ptr + at[:, None] + i * 16 + lane, mask=mask[:, None], other=0.0)
        squares = tl.fma(x, x, squares)
    mean = tl.div_rn(fold_lanes(squares), tl.full([rows], WIDTH, tl.float32))
    return tl.div_rn(tl.full([rows], 1.0, tl.float32), tl.sqrt_rn(mean + epsilon))
