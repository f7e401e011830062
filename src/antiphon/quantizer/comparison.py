"""How quantizing changed a model: KL divergence and perplexity on a text, in float32 from both models' weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from antiphon.checkpoint import Checkpoint
from antiphon.ops.reference_types import Array
from antiphon.quantizer.streamed import compute

_ROWS = 64  # processed at a time, in float64


@dataclass(frozen=True, slots=True)
class Comparison:
    """Averages over every position of the windows."""

    tokens: int
    mean_kl: float  # of the first model's next-token distribution from the second's, in nats
    same_top_token: float  # share of positions
    perplexity_before: float
    perplexity_after: float


def compare(before: Checkpoint, after: Checkpoint, windows: Sequence[Sequence[int]]) -> Comparison:
    """Both models on the same windows."""
    logits = compute(before, windows), compute(after, windows)
    following = np.array([token for window in windows for token in (*window[1:], -1)])
    divergence = agreements = 0.0
    surprise = np.zeros(2)
    for start in range(0, len(following), _ROWS):
        rows = slice(start, start + _ROWS)
        first, second = (_log_probabilities(each[rows]) for each in logits)
        divergence += float((np.exp(first) * (first - second)).sum())
        agreements += float((first.argmax(axis=1) == second.argmax(axis=1)).sum())
        known = np.flatnonzero(following[rows] >= 0)
        tokens = following[rows][known]
        surprise -= [float(each[known, tokens].sum()) for each in (first, second)]
    count, predicted = len(following), len(following) - len(windows)
    before_after = [math.exp(each / predicted) for each in surprise]
    return Comparison(count, divergence / count, agreements / count, *before_after)


def _log_probabilities(logits: Array) -> npt.NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return wide
