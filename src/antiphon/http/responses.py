"""What clients receive: OpenAI's response shapes, as structs that encode fast.

Owns the names and the order of every field that goes out. It promises that a field is present exactly where OpenAI has
it: null where theirs is null, absent where theirs is absent; what we add is absent unless it has something to say.
Structs and not pydantic models, because one of these is encoded for each token of each stream.
"""

from __future__ import annotations

from typing import Literal

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
    """An addition of ours, under the names that llama.cpp has for it."""

    queue_ms: float
    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float


# --- chat


class TopLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


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
    content: str | None = ""  # null: there are calls and no text
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[MadeCall] | UnsetType = UNSET
    refusal: None = None


class ChatChoice(msgspec.Struct):
    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: str
    thought_closed: str | UnsetType = UNSET  # an addition of ours: why the server closed the thought, if it did
    token_ids: list[int] | UnsetType = UNSET  # vLLM's, for those who ask for it


class Vote(msgspec.Struct):
    answer: str | None
    count: int
    counts: dict[str, int]


class ChatCompletion(msgspec.Struct, tag_field="object", tag="chat.completion"):
    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    timings: Timings
    vote: Vote | UnsetType = UNSET  # an addition of ours, for those who ask for it
    prompt_token_ids: list[int] | UnsetType = UNSET  # vLLM's, for those who ask for it


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
    thought_closed: str | UnsetType = UNSET  # in one chunk, where it happened
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletionChunk(msgspec.Struct, tag_field="object", tag="chat.completion.chunk"):
    id: str
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    timings: Timings | UnsetType = UNSET  # in the last chunk
    prompt_token_ids: list[int] | UnsetType = UNSET  # in the first


# --- plain completions


class CompletionLogprobs(msgspec.Struct):
    tokens: list[str]
    token_logprobs: list[float | None]  # null: the first of a prompt
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(msgspec.Struct):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None
    prompt_token_ids: list[int] | UnsetType = (
        UNSET  # as vLLM has them, for those who ask; in a stream in the first chunk
    )
    token_ids: list[int] | UnsetType = UNSET


class Completion(msgspec.Struct, tag_field="object", tag="text_completion"):
    """The same shape whole and streamed; only usage and timings differ."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET
    timings: Timings | UnsetType = UNSET


# --- models


class Model(msgspec.Struct, tag_field="object", tag="model"):
    id: str
    created: int
    max_model_len: int | UnsetType = UNSET  # as vLLM names the context length; known once the engine is ready
    owned_by: str = "antiphon"


class ModelList(msgspec.Struct, tag_field="object", tag="list"):
    data: list[Model]
