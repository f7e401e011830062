"""Student's t distribution for whole degrees of freedom, in closed form.

Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
"""

from __future__ import annotations

from math import atan, cos, pi, sin, sqrt


def two_sided_p(t: float, degrees: int) -> float:
    """The probability that |T| is at least `t`. `t` is not negative, `degrees` at least 1."""
    angle = atan(t / sqrt(degrees))
    cosine, sine = cos(angle), sin(angle)
    term, total = (cosine, 0.0) if degrees % 2 else (1.0, 0.0)
    for step in range(degrees % 2, degrees - 1, 2):
        total += term
        term *= cosine * cosine * (step + 1) / (step + 2)
    inside = 2 / pi * (angle + sine * total) if degrees % 2 else sine * total
    return min(1.0, max(0.0, 1 - inside))


def critical(p: float, degrees: int) -> float:
    """The t with a two-sided probability of `p`, by bisection."""
    low, high = 0.0, 1.0
    while two_sided_p(high, degrees) > p and high < 1e12:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_p(middle, degrees) > p else (low, middle)
    return high
