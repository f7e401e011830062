"""Elementary functions without the C library: how accurate they are, and that nothing else is called."""

import math
import random
import shutil
import struct
import subprocess
from fractions import Fraction

import numpy as np
import pytest

from antiphon import _native
from antiphon.models.rope import rope_frequencies

mpmath = pytest.importorskip("mpmath")

# Functions of the C library. Even those that every library rounds correctly are left to the processor.
MATHEMATICS = """
sin cos sincos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh exp exp2 exp10 expm1 log log2 log10 log1p
pow cbrt hypot erf erfc tgamma lgamma fma fmod remainder nearbyint rint round sqrt
""".split()  # noqa: SIM905


def error_in_ulps(value: float, exact: "mpmath.mpf") -> float:
    return float(abs(mpmath.mpf(value) - exact) / math.ulp(float(exact)))


def angles() -> list[float]:
    """Of every size, those next to multiples of pi/2 among them, and those of real rotary tables."""
    rng = random.Random(7)  # noqa: S311
    found = [0.0, -0.0, 5e-324, 1e-300, 1e-9, 0.7853981633974483, 0.785398163397449, 2.0**25, -(2.0**25)]
    found += [rng.uniform(-1, 1) * 2.0 ** rng.randint(-20, 25) for _ in range(3000)]
    for _ in range(1500):
        multiple = float(mpmath.pi / 2 * rng.randint(-21_000_000, 21_000_000))
        found += [multiple, math.nextafter(multiple, math.inf)]
    for theta in (1e4, 1e6):
        frequencies = rope_frequencies(theta, 128, None, 131072)
        found += [rng.randrange(131072) * rng.choice(frequencies) for _ in range(2000)]
    return found


def test_sines_and_cosines_are_within_an_ulp() -> None:
    with mpmath.workdps(50):
        for angle in angles():
            sine, cosine = _native.sine_cosine(angle)
            assert error_in_ulps(sine, mpmath.sin(mpmath.mpf(angle))) <= 1.0, angle
            assert error_in_ulps(cosine, mpmath.cos(mpmath.mpf(angle))) <= 1.0, angle


def test_logarithms_are_within_two_ulps() -> None:
    rng = random.Random(8)  # noqa: S311
    numbers = [1.0, math.nextafter(1.0, 0.0), math.nextafter(1.0, 2.0), 0.5**0.5, 2.0**0.5, 2.0**-1022, 1.7e308]
    numbers += [rng.uniform(0.5, 2.0) for _ in range(3000)] + [2.0 ** rng.uniform(-1000, 1000) for _ in range(3000)]
    numbers += [rng.uniform(1.0, 300_000.0) for _ in range(3000)]  # sums of exponentials
    with mpmath.workdps(50):
        for x in numbers:
            assert error_in_ulps(_native.natural_logarithm(x), mpmath.log(mpmath.mpf(x))) <= 2.0, x


@pytest.mark.parametrize("x", [0.0, -1.0, math.inf, math.nan, 5e-324])
def test_what_has_no_logarithm_is_refused(x: float) -> None:
    with pytest.raises(ValueError, match="positive, finite and normal"):
        _native.natural_logarithm(x)


@pytest.mark.parametrize("angle", [math.inf, math.nan, 2.0**25 + 1])
def test_angles_beyond_any_context_are_refused(angle: float) -> None:
    with pytest.raises(ValueError, match=r"at most 2\^25"):
        _native.sine_cosine(angle)


def float_of(bits: int) -> float:
    value: float = struct.unpack("<f", struct.pack("<I", bits))[0]
    return value


def nearest_float32(exact: Fraction) -> float:
    """Round half to even, by integers."""
    if exact == 0:
        return 0.0
    magnitude = abs(exact)
    exponent = max(magnitude.numerator.bit_length() - magnitude.denominator.bit_length() - 1, -126)
    while magnitude >= Fraction(2) ** (exponent + 1):
        exponent += 1
    unit = Fraction(2) ** (exponent - 23)
    rounded = round(magnitude / unit) * unit  # Python rounds halves of fractions to even
    value = math.inf if rounded > Fraction(float(np.finfo(np.float32).max)) else float(rounded)
    return -value if exact < 0 else value


def test_the_plain_kernels_multiply_and_add_with_one_rounding() -> None:
    """Also where rounding to double first and then to float would be wrong."""
    rng = random.Random(9)  # noqa: S311
    cases = [(1.0 + 2.0**-23, 1.0 + 2.0**-23, 2.0**-60), (1.0 + 2.0**-12, 1.0 + 2.0**-12, -(2.0**-70))]
    cases += [(float_of(1), float_of(1), 1.0), (float_of(0x7F7FFFFF), 2.0, -float_of(0x7F7FFFFF))]
    for _ in range(20_000):
        a, b = (float_of(rng.getrandbits(32) & 0xBFFFFFFF) for _ in range(2))
        c = float_of(rng.getrandbits(32) & 0xBFFFFFFF)
        if rng.random() < 0.7:  # a sum near a tie
            a, b = (float_of(0x3F800000 | rng.getrandbits(12) << 11) for _ in range(2))
            c = math.ldexp(rng.choice([-1.0, 1.0]) * (1 + rng.getrandbits(3) / 8), rng.randint(-80, 2))
        cases.append((a, b, c))
    for a, b, c in cases:
        expected = nearest_float32(Fraction(a) * Fraction(b) + Fraction(c))
        assert _native.fused_multiply_add(a, b, c) == expected, (a.hex(), b.hex(), c.hex())


def test_numbers_that_are_not_finite_pass_through_a_fused_multiply_add() -> None:
    assert _native.fused_multiply_add(math.inf, 1.0, 5.0) == math.inf
    assert _native.fused_multiply_add(1.0, 2.0, -math.inf) == -math.inf
    for triple in ((math.inf, 0.0, 1.0), (math.nan, 1.0, 1.0), (math.inf, 1.0, -math.inf), (1.0, 1.0, math.nan)):
        assert math.isnan(_native.fused_multiply_add(*triple))


def test_the_compiled_module_calls_no_mathematics_of_the_c_library() -> None:
    """So another version of the C library, or another C library, cannot change a bit."""
    tool = shutil.which("nm")
    if tool is None:
        pytest.skip("there is no nm (binutils) to list the symbols with")
    listed = subprocess.run(
        [tool, "-D", "--undefined-only", _native.__file__], capture_output=True, text=True, check=True
    )
    called = {line.split()[-1].split("@")[0] for line in listed.stdout.splitlines()}
    assert "malloc" in called, "the list of symbols is not what it seems"
    forbidden = {name + suffix for name in MATHEMATICS for suffix in ("", "f", "l")}
    assert not called & forbidden
    vectors = {name for name in called if name.startswith("_ZGV")}  # the C library's vector mathematics
    assert not vectors


def test_the_compiled_module_does_not_load_the_c_librarys_mathematics() -> None:
    tool = shutil.which("readelf")
    if tool is None:
        pytest.skip("there is no readelf (binutils)")
    section = subprocess.run([tool, "-d", _native.__file__], capture_output=True, text=True, check=True).stdout
    needed = [line for line in section.splitlines() if "NEEDED" in line]
    assert any("libc.so" in line for line in needed)
    assert not any("libm.so" in line or "libmvec" in line for line in needed)
