"""The reference for drawing tokens: the rules of `request.SamplingParams`, in NumPy float64, one row at a time.

Owns its own random numbers too: the compiled sampler's counter-based generator, written again from its paper. Which
part of [0, 1) is a token's depends on an order, and the order is part of the rules: tokens share it by id. top_k keeps
the lower ids among equals; where top_p ends, all equals are kept.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from antiphon.request import SamplingParams, TokenLogprobs
from antiphon.step import SampledToken, SampleSpec

Row: TypeAlias = npt.NDArray[np.float64]
Ids: TypeAlias = npt.NDArray[np.int64]

COLDEST = 1e-5  # below this temperature the largest logit is taken, as at zero
_MASK = 0xFFFFFFFF


def sample_reference(logits: npt.NDArray[np.float32], spec: SampleSpec, sequence_id: int = 0) -> SampledToken:
    """Draw from one row of logits, [vocabulary]."""
    raw = logits.astype(np.float64)
    if not np.isfinite(raw).all():
        return SampledToken(sequence_id, error="the model's logits are not finite numbers")
    row = adjusted(raw, spec)
    if np.isneginf(row).all():
        return SampledToken(
            sequence_id, error="the grammar, logit_bias and min_tokens of this request leave no token to choose"
        )
    token_id = int(np.argmax(row)) if spec.sampling.temperature < COLDEST else _draw(row, spec)
    return SampledToken(sequence_id, token_id, _logprobs(raw, token_id, spec.sampling.num_logprobs))


def adjusted(row: Row, spec: SampleSpec) -> Row:
    """The row after the grammar's mask, penalties, biases and the mask of min_tokens."""
    row = row.copy()
    if spec.token_bitmask:
        allowed = np.unpackbits(np.frombuffer(spec.token_bitmask, np.uint8), count=len(row), bitorder="little")
        row[allowed == 0] = -np.inf
    sampling = spec.sampling
    if sampling.needs_history:
        history = [*spec.history, *spec.drafted]
        seen = np.unique(np.array(history, np.int64))
        row[seen] = np.where(
            row[seen] > 0, row[seen] / sampling.repetition_penalty, row[seen] * sampling.repetition_penalty
        )
        generated, counts = np.unique(np.array(history[spec.num_prompt_tokens :], np.int64), return_counts=True)
        row[generated] -= sampling.presence_penalty + counts * sampling.frequency_penalty
    for token_id, bias in spec.logit_bias.items():
        row[token_id] += bias
    row[list(spec.masked_token_ids)] = -np.inf
    return row


def candidates(row: Row, sampling: SamplingParams) -> tuple[Ids, Row]:
    """The tokens that may be drawn, in the order in which they share [0, 1), and their probabilities."""
    scaled = row / sampling.temperature
    weights = np.exp(scaled - scaled.max())
    ids: Ids = np.arange(len(row))
    top_k = sampling.top_k if sampling.top_k < len(row) else 0  # all of them is no filter
    if top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0:
        ids = np.argsort(-row, kind="stable")
        ids = ids[:top_k] if top_k > 0 else ids
        kept = weights[ids]
        before = np.cumsum(kept) - kept  # the weight of the likelier ones
        keep = (before < sampling.top_p * kept.sum()) & (kept >= sampling.min_p * kept[0])
        keep |= kept >= kept[keep].min(initial=kept[0])  # the likeliest, and equals of the last one
        ids = np.sort(ids[keep])
    ids = ids[row[ids] > -np.inf]
    return ids, weights[ids] / weights[ids].sum()


def _draw(row: Row, spec: SampleSpec) -> int:
    ids, probabilities = candidates(row, spec.sampling)
    uniform = uniform_reference(spec.sampling.seed, spec.choice_index, spec.position)
    index = int(np.searchsorted(np.cumsum(probabilities), uniform, side="right"))
    return int(ids[min(index, len(ids) - 1)])


def _logprobs(raw: Row, token_id: int, count: int | None) -> TokenLogprobs | None:
    """Of the model's own distribution, before anything was changed."""
    if count is None:
        return None
    logprobs = raw - raw.max() - np.log(np.exp(raw - raw.max()).sum())
    top = np.argsort(-raw, kind="stable")[:count]
    return TokenLogprobs(float(logprobs[token_id]), top.tolist(), logprobs[top].tolist())


def uniform_reference(seed: int, choice_index: int, position: int) -> float:
    """The number in [0, 1) that draws the token at `position`: 53 bits of the first two words of Philox's block."""
    counter = (position & _MASK, position >> 32, choice_index, 0)
    first, second, _, _ = philox4x32(counter, (seed & _MASK, seed >> 32))
    return float(((first << 32 | second) >> 11) / 2**53)


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Ten rounds of Philox-4x32 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3; SC 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        left, right = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = right >> 32 ^ c1 ^ k0, right & _MASK, left >> 32 ^ c3 ^ k1, left & _MASK
        k0, k1 = k0 + 0x9E3779B9 & _MASK, k1 + 0xBB67AE85 & _MASK
    return c0, c1, c2, c3
