"""Shapes that the answers of several APIs share: usage, timings, log-probabilities, and the encoder for all of them.

These are structs, not pydantic models, because one of them is encoded for each token of each stream.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import UNSET, UnsetType

encoder = msgspec.json.Encoder()


class PromptTokensDetails(msgspec.Struct):
    cached_tokens: int


class CompletionTokensDetails(msgspec.Struct):
    reasoning_tokens: int


class Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class Timings(msgspec.Struct):
    """Our addition to OpenAI's format, with llama.cpp's names."""

    queue_ms: float
    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float
    draft_n: int | UnsetType = UNSET  # absent where nothing was drafted
    draft_n_accepted: int | UnsetType = UNSET


class Degraded(msgspec.Struct, frozen=True):
    """Our addition to every API: the limits that were lowered because of the load, under chat's names."""

    level: int
    max_tokens: int | UnsetType = UNSET
    thinking_token_budget: int | UnsetType = UNSET
    temperature: float | UnsetType = UNSET

    def limits(self) -> Iterator[tuple[str, float]]:
        """The names and values of the limits that were lowered."""
        for name in ("max_tokens", "thinking_token_budget", "temperature"):
            if (value := getattr(self, name)) is not UNSET:
                yield name, value


class QueueShape(msgspec.Struct):
    """Our addition to OpenAI's format."""

    position: int  # 1: the next to begin


class PromptProgressShape(msgspec.Struct):
    """Our addition to OpenAI's format, with llama.cpp's names."""

    total: int  # tokens of the prompt
    cache: int  # of those, found in the prefix cache
    processed: int  # of those, computed or found in the prefix cache
    time_ms: float  # since the engine began


class TopLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]
