"""What every generation endpoint writes the same way: usage, timings, ids and log-probabilities."""

from __future__ import annotations

import secrets

from antiphon.api.generation import Generation
from antiphon.api.pieces import Tally
from antiphon.api.shapes import CompletionTokensDetails, PromptTokensDetails, Timings, Usage


def usage_of(tally: Tally) -> Usage:
    """A request's tokens in OpenAI's shape."""
    return Usage(
        prompt_tokens=tally.prompt,
        completion_tokens=tally.completion,
        total_tokens=tally.prompt + tally.completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=tally.cached),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=tally.reasoning),
    )


def timings_of(generation: Generation) -> Timings:
    """Where a request's time went: its turn, its prompt, its answer; rates are 0 where there was no time to measure."""
    tally, times = generation.tally, generation.times
    num_computed = tally.prompt - tally.cached
    return Timings(
        queue_ms=_milliseconds(times.queue),
        cache_n=tally.cached,
        prompt_n=num_computed,
        prompt_ms=_milliseconds(times.prefill),
        prompt_per_second=_rate(num_computed, times.prefill),
        predicted_n=tally.completion,
        predicted_ms=_milliseconds(times.decode),
        predicted_per_second=_rate(times.num_decoded, times.decode),
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 3) if seconds > 0 else 0.0


def new_id(kind: str) -> str:
    """An id as OpenAI's look: what it is, and enough randomness to be unique."""
    return f"{kind}-{secrets.token_hex(16)}"
