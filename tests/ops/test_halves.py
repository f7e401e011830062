"""Half precision: every half there is, and every kind of rounding, as NumPy has them."""

import numpy as np

from antiphon import _native


def as_half(values: np.ndarray) -> np.ndarray:
    """float32 → half's bits, by our own integer arithmetic."""
    return np.array([_native.float_to_half(float(value)) for value in values], np.uint16)


def test_every_half_becomes_the_same_float() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = np.empty((1, len(bits)), np.float32)
    _native.StoredMatrix(bits.tobytes(), "F16", 1, len(bits)).dequantize(values)
    expected = bits.view(np.float16).astype(np.float32)
    numbers = ~np.isnan(expected)
    assert (values[0].view(np.uint32) == expected.view(np.uint32))[numbers].all()
    assert np.isnan(values[0][~numbers]).all()
    assert all(_native.half_to_float(i) == expected[i] for i in range(0, 1 << 16, 97) if numbers[i])


def test_every_half_comes_back() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = bits.view(np.float16).astype(np.float32)
    numbers = ~np.isnan(values)
    assert (as_half(values[numbers]) == bits[numbers]).all()
    assert np.isnan(as_half(values[~numbers]).view(np.float16)).all()


def test_rounding_is_to_nearest_even() -> None:
    """Each midpoint between two halves, and the floats on both sides of it; beyond the largest, infinity."""
    halves = np.arange(0x7BFF, dtype=np.uint16)
    low, high = halves.view(np.float16).astype(np.float32), (halves + 1).view(np.float16).astype(np.float32)
    middle = (low + high) / 2
    values = np.concatenate([middle, np.nextafter(middle, low), np.nextafter(middle, high)])
    values = np.concatenate([values, [65519.996, 65520.0, 65536.0, 1e10, np.inf, 1e-8, 2.0**-25, 1e-40]]).astype(
        np.float32
    )
    with np.errstate(over="ignore", under="ignore"):
        expected = np.concatenate([values, -values]).astype(np.float16).view(np.uint16)
    assert (as_half(np.concatenate([values, -values])) == expected).all()
