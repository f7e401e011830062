"""Plain completions in OpenAI's format, whole and streamed."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from antiphon.api.shapes import Degraded, PromptProgressShape, QueueShape, Timings, Usage


class CompletionLogprobs(msgspec.Struct):
    tokens: list[str]
    token_logprobs: list[float | None]  # null for the first token of a prompt
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(msgspec.Struct):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None
    prompt_token_ids: list[int] | UnsetType = UNSET  # as in vLLM, on request; in a stream in the first chunk
    token_ids: list[int] | UnsetType = UNSET
    ended_by: str | UnsetType = UNSET  # our addition: "timeout"


class Completion(msgspec.Struct, tag_field="object", tag="text_completion"):
    """A whole completion or a chunk of a stream; only usage and timings differ."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET
    timings: Timings | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET  # the one that was used, if the request names one
    queue: QueueShape | UnsetType = UNSET  # in chunks without choices, on request
    prompt_progress: PromptProgressShape | UnsetType = UNSET  # as in llama.cpp, likewise
    degraded: Degraded | UnsetType = UNSET  # our addition, at the end
    system_fingerprint: str | None = None
    inexact_continuation: bool | UnsetType = UNSET  # our addition, at the end
