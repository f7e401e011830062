"""Chat completions in OpenAI's format, whole and streamed.

Owns the names and the order of all fields that are sent. A field is null where OpenAI's is null, and absent where
OpenAI's is absent. Our additions are absent unless they have a value.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from antiphon.api.shapes import Degraded, PromptProgressShape, QueueShape, Timings, TokenLogprob, Usage
from antiphon.api.vote import Vote


class ChatLogprobs(msgspec.Struct):
    content: list[TokenLogprob]
    refusal: None = None


class CalledFunction(msgspec.Struct):
    name: str
    arguments: str  # a JSON object


class MadeCall(msgspec.Struct):
    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


class ChatMessage(msgspec.Struct):
    role: Literal["assistant"] = "assistant"
    content: str | None = ""  # null if there are calls and no text
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[MadeCall] | UnsetType = UNSET
    refusal: None = None


class ChatChoice(msgspec.Struct):
    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: str
    thought_closed: str | UnsetType = UNSET  # our addition: why the server closed the thought, if it did
    token_ids: list[int] | UnsetType = UNSET  # as in vLLM, on request
    ended_by: str | UnsetType = UNSET  # our addition: "timeout"


class ChatCompletion(msgspec.Struct, tag_field="object", tag="chat.completion"):
    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    timings: Timings
    vote: Vote | UnsetType = UNSET  # our addition, on request
    prompt_token_ids: list[int] | UnsetType = UNSET  # as in vLLM, on request
    service_tier: str | UnsetType = UNSET  # the one that was used, if the request names one
    degraded: Degraded | UnsetType = UNSET  # our addition
    system_fingerprint: str | None = None
    inexact_continuation: bool | UnsetType = UNSET  # our addition


class CalledFunctionDelta(msgspec.Struct):
    name: str | UnsetType = UNSET
    arguments: str = ""


class MadeCallDelta(msgspec.Struct):
    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: CalledFunctionDelta = msgspec.field(default_factory=CalledFunctionDelta)


class ChatDelta(msgspec.Struct):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[MadeCallDelta] | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: str | None
    thought_closed: str | UnsetType = UNSET  # in the chunk where it happened
    token_ids: list[int] | UnsetType = UNSET
    ended_by: str | UnsetType = UNSET


class ChatCompletionChunk(msgspec.Struct, tag_field="object", tag="chat.completion.chunk"):
    id: str
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    timings: Timings | UnsetType = UNSET  # in the last chunk
    prompt_token_ids: list[int] | UnsetType = UNSET  # in the first chunk
    service_tier: str | UnsetType = UNSET
    queue: QueueShape | UnsetType = UNSET  # in chunks without choices, on request
    prompt_progress: PromptProgressShape | UnsetType = UNSET  # as in llama.cpp, likewise
    degraded: Degraded | UnsetType = UNSET  # our addition, in the last chunk
    system_fingerprint: str | None = None
    inexact_continuation: bool | UnsetType = UNSET  # our addition, in the last chunk
