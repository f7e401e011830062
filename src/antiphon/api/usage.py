"""The parts of an answer that all generation endpoints share: usage, timings, lowered limits, fingerprints, ids."""

from __future__ import annotations

import secrets
from typing import Literal

from msgspec import UNSET, UnsetType

from antiphon.api.generation import Generation
from antiphon.api.pieces import Tally
from antiphon.api.shapes import CompletionTokensDetails, Degraded, PromptTokensDetails, Timings, Usage


def usage_of(tally: Tally) -> Usage:
    """A request's token counts in OpenAI's shape."""
    return Usage(
        prompt_tokens=tally.prompt,
        completion_tokens=tally.completion,
        total_tokens=tally.prompt + tally.completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=tally.cached),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=tally.reasoning),
    )


def timings_of(generation: Generation) -> Timings:
    """How long a request waited, and how long its prompt and answer took. Rates are 0 if no time was measured."""
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
        draft_n=tally.drafted or UNSET,
        draft_n_accepted=tally.accepted if tally.drafted else UNSET,
    )


def degraded_of(generation: Generation) -> Degraded | UnsetType:
    """The limits that were lowered because of the load, if any."""
    return UNSET if generation.degraded is None else generation.degraded


def inexact_of(generation: Generation) -> Literal[True] | UnsetType:
    """True if the answer continued on an engine with other arithmetic than the one before, else absent."""
    return True if generation.is_inexact else UNSET


def fingerprint_of(generation: Generation) -> str | None:
    """`system_fingerprint` in OpenAI's APIs."""
    return generation.system_fingerprint or None


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 3) if seconds > 0 else 0.0


def new_id(kind: str) -> str:
    """An id like OpenAI's: the kind, and enough random digits to be unique."""
    return f"{kind}-{secrets.token_hex(16)}"
