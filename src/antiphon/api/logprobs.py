"""Tokens and their log-probabilities in OpenAI's format."""

from __future__ import annotations

from antiphon.api.pieces import ScoredToken
from antiphon.api.shapes import TokenLogprob, TopLogprob
from antiphon.request import TokenLogprobs
from antiphon.text import Tokenizer

_LEAST_LOGPROB = -9999.0  # JSON has no infinity; OpenAI's value for a probability of zero


def finite(logprob: float) -> float:
    """A log-probability that JSON can represent."""
    return max(logprob, _LEAST_LOGPROB)


def token_logprob(tokenizer: Tokenizer, scored: ScoredToken) -> TokenLogprob:
    """A token in the format of chat completions, with its likeliest alternatives."""
    spelled, scores = tokenizer.id_to_bytes(scored.token_id), scored.scores
    rivals = []
    for token_id, logprob in zip(scores.top_token_ids, scores.top_logprobs, strict=True):
        rival = tokenizer.id_to_bytes(token_id)
        rivals.append(TopLogprob(rival.decode("utf-8", "replace"), finite(logprob), list(rival)))
    return TokenLogprob(spelled.decode("utf-8", "replace"), finite(scores.logprob), list(spelled), rivals)


def rivals_by_text(tokenizer: Tokenizer, token_id: int, scores: TokenLogprobs) -> dict[str, float]:
    """The likeliest tokens and the scored one, wherever it ranks, so there may be one more than was asked for.

    Of tokens with the same text the likeliest counts: evaluation harnesses compare the largest value here with the
    scored token's own to tell whether it is the likeliest.
    """
    rivals: dict[str, float] = {}
    pairs = zip(scores.top_token_ids, scores.top_logprobs, strict=True)
    for rival_id, logprob in (*pairs, (token_id, scores.logprob)):
        text = spelled(tokenizer, rival_id)
        rivals[text] = max(rivals.get(text, _LEAST_LOGPROB), finite(logprob))
    return rivals


def spelled(tokenizer: Tokenizer, token_id: int) -> str:
    """A token in the format of plain completions: `bytes:` and the byte values, if it is not valid UTF-8 by itself."""
    spelled = tokenizer.id_to_bytes(token_id)
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)
