"""Rotary positions (Su et al., RoFormer, 2021) and the ways in which models stretch them to longer contexts.

Every scaling here changes a frequency once, independently of the length of a sequence, so that a cached key stays
valid. Dynamic NTK was published differently: its angles depend on the current length of the sequence, so that a token's
key would depend on later tokens. No cache could hold it, and an answer would depend on load. Here, as in vLLM, all
sequences use the angles of the longest possible sequence.

Computed in float64 from the mapping in a checkpoint's `rope_scaling`, without the C library, so that the frequencies
are the same bits on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from antiphon.portable_math import natural_logarithm, power


def rope_frequencies(theta: float, head_dim: int, scaling: Mapping[str, Any] | None, longest: int) -> list[float]:
    """Radians per position, [head_dim / 2]; `longest`: the maximum number of tokens of a sequence."""
    frequencies = [power(theta, -2 * i / head_dim) for i in range(head_dim // 2)]
    if scaling is None:
        return frequencies
    match scaling["rope_type"]:
        case "linear":
            return [frequency / scaling["factor"] for frequency in frequencies]
        case "llama3":
            return [_llama3(frequency, scaling) for frequency in frequencies]
        case "yarn":
            return _yarn(frequencies, theta, scaling)
        case "dynamic":
            return rope_frequencies(_dynamic_theta(theta, head_dim, scaling, longest), head_dim, None, longest)
        case "divisors":
            return [frequency / divisor for frequency, divisor in zip(frequencies, scaling["divisors"], strict=True)]
    raise AssertionError(f"formats let the rotary scaling {scaling['rope_type']!r} pass")


def rope_attention_factor(scaling: Mapping[str, Any] | None) -> float:
    """The factor by which Q and K are multiplied after the rotation."""
    return float(scaling.get("attention_factor", 1.0)) if scaling else 1.0


def _dynamic_theta(theta: float, head_dim: int, scaling: Mapping[str, Any], longest: int) -> float:
    """The base grows with the length beyond the trained one, so that the slowest rotation covers it."""
    beyond = max(longest / scaling["original_max_position_embeddings"], 1.0) - 1.0
    return theta * power(1.0 + scaling["factor"] * beyond, head_dim / (head_dim - 2))


def _llama3(frequency: float, scaling: Mapping[str, Any]) -> float:
    """Keep rotations that training completed many times, stretch those it never completed, blend those in between."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * frequency / (2 * math.pi)
    return _blend(frequency, scaling["factor"], (turns - low) / (high - low))


def _yarn(frequencies: list[float], theta: float, scaling: Mapping[str, Any]) -> list[float]:
    """The same idea (Peng et al., YaRN, 2023, section 3.2), blending along the dimensions instead of the turns."""
    head_dim, original = 2 * len(frequencies), scaling["original_max_position_embeddings"]

    def dimension(turns: float) -> float:  # the one whose angle makes so many turns within the original context
        return head_dim * natural_logarithm(original / (turns * 2 * math.pi)) / (2 * natural_logarithm(theta))

    first, last = dimension(scaling["beta_fast"]), dimension(scaling["beta_slow"])
    if scaling["truncate"]:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    width = last - first or 0.001  # as the paper's code has it
    return [_blend(frequency, scaling["factor"], 1 - (i - first) / width) for i, frequency in enumerate(frequencies)]


def _blend(frequency: float, factor: float, kept: float) -> float:
    """`kept` (0 to 1) of the frequency unchanged, the rest divided by `factor`."""
    kept = min(max(kept, 0.0), 1.0)
    return frequency * (kept + (1 - kept) / factor)
