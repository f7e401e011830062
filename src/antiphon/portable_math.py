"""Powers and logarithms that are the same on every machine. A leaf.

`**` and `math.log` of floats call the C library, whose last bit differs between versions and vendors. A model's
numbers must not depend on it (docs/decisions/025-own-mathematics.md). Here Python's `decimal` module computes with
integers, to 40 digits, and the result is rounded to the nearest float once.
"""

from __future__ import annotations

import decimal

_CONTEXT = decimal.Context(prec=40, rounding=decimal.ROUND_HALF_EVEN)


def power(base: float, exponent: float) -> float:
    """`base` to the power of `exponent`, the nearest float. `base` > 0; both finite."""
    return float(_CONTEXT.power(decimal.Decimal(base), decimal.Decimal(exponent)))


def natural_logarithm(x: float) -> float:
    """The natural logarithm of `x` > 0, the nearest float."""
    return float(_CONTEXT.ln(decimal.Decimal(x)))
