"""What every generation endpoint writes the same way: usage and the spelling of single tokens."""

from __future__ import annotations

import secrets

from antiphon.http.generation import Tally
from antiphon.http.responses import CompletionTokensDetails, PromptTokensDetails, Usage

_LEAST_LOGPROB = -9999.0  # JSON has no infinity; OpenAI's stand-in for a probability of zero


def usage_of(tally: Tally) -> Usage:
    """A request's tokens in OpenAI's shape."""
    return Usage(
        prompt_tokens=tally.prompt,
        completion_tokens=tally.completion,
        total_tokens=tally.prompt + tally.completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=tally.cached),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=tally.reasoning),
    )


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return max(logprob, _LEAST_LOGPROB)


def new_id(kind: str) -> str:
    """An id as OpenAI's look: what it is, and enough randomness to be unique."""
    return f"{kind}-{secrets.token_hex(16)}"
