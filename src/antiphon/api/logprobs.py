"""Tokens and their log-probabilities as OpenAI writes them."""

from __future__ import annotations

from antiphon.api.pieces import ScoredToken
from antiphon.api.shapes import TokenLogprob, TopLogprob
from antiphon.text import Tokenizer

_LEAST_LOGPROB = -9999.0  # JSON has no infinity; OpenAI's stand-in for a probability of zero


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return max(logprob, _LEAST_LOGPROB)


def token_logprob(tokenizer: Tokenizer, scored: ScoredToken) -> TokenLogprob:
    """A token as chat writes it, with its rivals."""
    spelled, scores = tokenizer.id_to_bytes(scored.token_id), scored.scores
    rivals = []
    for token_id, logprob in zip(scores.top_token_ids, scores.top_logprobs, strict=True):
        rival = tokenizer.id_to_bytes(token_id)
        rivals.append(TopLogprob(rival.decode("utf-8", "replace"), finite(logprob), list(rival)))
    return TokenLogprob(spelled.decode("utf-8", "replace"), finite(scores.logprob), list(spelled), rivals)


def spelled(tokenizer: Tokenizer, token_id: int) -> str:
    """A token as this endpoint writes it: tokens that are no whole characters as `bytes:` and their values."""
    spelled = tokenizer.id_to_bytes(token_id)
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)
