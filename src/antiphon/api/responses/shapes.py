"""The output of `/v1/responses`: the response, its items and its events, in OpenAI's format.

This module only defines the shapes; `answer` and `items` fill them.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from antiphon.api.shapes import Degraded, PromptProgressShape, QueueShape, Timings, TokenLogprob

Status = Literal["in_progress", "completed", "incomplete"]  # of an item
ResponseStatus = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]


# --- items


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    text: str = ""
    annotations: list[None] = []
    logprobs: list[TokenLogprob] = []


class ReasoningText(msgspec.Struct, tag_field="type", tag="reasoning_text"):
    text: str = ""
    logprobs: list[TokenLogprob] | UnsetType = UNSET  # our addition, on request


class Message(msgspec.Struct, tag_field="type", tag="message"):
    id: str
    status: Status = "in_progress"
    role: Literal["assistant"] = "assistant"
    content: list[OutputText] = []


class Reasoning(msgspec.Struct, tag_field="type", tag="reasoning"):
    id: str
    status: Status = "in_progress"
    summary: list[None] = []
    content: list[ReasoningText] = []


class FunctionCall(msgspec.Struct, tag_field="type", tag="function_call"):
    id: str
    call_id: str
    name: str
    arguments: str = ""
    status: Status = "in_progress"


Item = Message | Reasoning | FunctionCall
Part = OutputText | ReasoningText


# --- the response


class InputTokensDetails(msgspec.Struct):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct):
    reasoning_tokens: int


class Usage(msgspec.Struct):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class IncompleteDetails(msgspec.Struct):
    reason: Literal["max_output_tokens"]
    ended_by: str | UnsetType = UNSET  # our addition: "timeout"


class ResponseError(msgspec.Struct):
    code: str
    message: str


class ResponseBody(msgspec.Struct, tag_field="object", tag="response"):
    id: str
    created_at: int
    model: str
    status: ResponseStatus = "in_progress"
    completed_at: int | None = None
    output: list[Item] = []
    usage: Usage | None = None
    incomplete_details: IncompleteDetails | None = None
    error: ResponseError | None = None
    # the request's settings, with the defaults filled in
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool = True
    max_output_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_logprobs: int = 0
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    text: dict[str, Any] = {}
    reasoning: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    truncation: Literal["disabled"] = "disabled"
    background: bool = False
    service_tier: str = "default"  # the one that was used
    user: str | None = None
    # our additions, at the end of the response
    timings: Timings | UnsetType = UNSET
    thought_closed: str | UnsetType = UNSET  # why the server closed the thought, if it did
    degraded: Degraded | UnsetType = UNSET
    inexact_continuation: bool | UnsetType = UNSET


class Deleted(msgspec.Struct, tag_field="object", tag="response"):
    id: str
    deleted: bool = True


class InputTokens(msgspec.Struct, tag_field="object", tag="response.input_tokens"):
    input_tokens: int


class ItemList(msgspec.Struct, tag_field="object", tag="list"):
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


# --- events


class Event(msgspec.Struct, tag_field="type", kw_only=True):
    sequence_number: int = 0


class ResponseEvent(Event, kw_only=True):
    response: ResponseBody


class Created(ResponseEvent, kw_only=True, tag="response.created"): ...


class Queued(ResponseEvent, kw_only=True, tag="response.queued"): ...


class InProgress(ResponseEvent, kw_only=True, tag="response.in_progress"): ...


class Completed(ResponseEvent, kw_only=True, tag="response.completed"): ...


class Incomplete(ResponseEvent, kw_only=True, tag="response.incomplete"):
    """Also ends a response that was cancelled: OpenAI has no event for that."""


class Failed(ResponseEvent, kw_only=True, tag="response.failed"): ...


class Progress(Event, kw_only=True, tag="response.progress"):
    """Our addition, on request: how far the response is before its first token."""

    queue: QueueShape | UnsetType = UNSET
    prompt_progress: PromptProgressShape | UnsetType = UNSET


class ItemEvent(Event, kw_only=True):
    output_index: int
    item: Item


class ItemAdded(ItemEvent, kw_only=True, tag="response.output_item.added"): ...


class ItemDone(ItemEvent, kw_only=True, tag="response.output_item.done"): ...


class ContentEvent(Event, kw_only=True):
    item_id: str
    output_index: int
    content_index: int = 0


class PartAdded(ContentEvent, kw_only=True, tag="response.content_part.added"):
    part: Part


class PartDone(ContentEvent, kw_only=True, tag="response.content_part.done"):
    part: Part


class TextDelta(ContentEvent, kw_only=True, tag="response.output_text.delta"):
    delta: str
    logprobs: list[TokenLogprob] = []
    num_tokens: int | UnsetType = UNSET  # of the answer so far; our addition, on request


class TextDone(ContentEvent, kw_only=True, tag="response.output_text.done"):
    text: str
    logprobs: list[TokenLogprob] = []


class ReasoningDelta(ContentEvent, kw_only=True, tag="response.reasoning_text.delta"):
    delta: str
    logprobs: list[TokenLogprob] | UnsetType = UNSET
    num_tokens: int | UnsetType = UNSET


class ReasoningDone(ContentEvent, kw_only=True, tag="response.reasoning_text.done"):
    text: str


class ArgumentsDelta(Event, kw_only=True, tag="response.function_call_arguments.delta"):
    item_id: str
    output_index: int
    delta: str
    num_tokens: int | UnsetType = UNSET


class ArgumentsDone(Event, kw_only=True, tag="response.function_call_arguments.done"):
    item_id: str
    output_index: int
    name: str
    arguments: str


Delta = TextDelta | ReasoningDelta | ArgumentsDelta
