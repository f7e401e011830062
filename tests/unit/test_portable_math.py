"""Powers and logarithms without the C library: the nearest float, always."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.portable_math import natural_logarithm, power

mpmath = pytest.importorskip("mpmath")


@given(base=st.floats(1.0, 1e9), exponent=st.floats(-2.0, 2.0))
def test_a_power_is_the_nearest_float(base: float, exponent: float) -> None:
    with mpmath.workdps(60):
        assert power(base, exponent) == float(mpmath.mpf(base) ** mpmath.mpf(exponent))


@given(st.floats(1e-300, 1e300))
def test_a_logarithm_is_the_nearest_float(x: float) -> None:
    with mpmath.workdps(60):
        assert natural_logarithm(x) == float(mpmath.log(mpmath.mpf(x)))


@pytest.mark.parametrize("theta", [1.0, 10_000.0, 500_000.0, 1e6, 5e6])
def test_rotary_frequencies_are_within_an_ulp_of_the_c_librarys(theta: float) -> None:
    for dim in (32, 64, 96, 128):
        for i in range(dim // 2):
            expected = math.pow(theta, -2 * i / dim)
            assert abs(power(theta, -2 * i / dim) - expected) <= math.ulp(expected)
