"""The output of `/v1/messages`: the message, its blocks, its events and its errors, in Anthropic's format.

This module only defines the shapes; `answer`, `blocks` and `errors` fill them.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from antiphon.api.shapes import Degraded

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


# --- blocks


class Text(msgspec.Struct, tag_field="type", tag="text"):
    text: str = ""


class Thinking(msgspec.Struct, tag_field="type", tag="thinking"):
    thinking: str = ""
    signature: str = ""  # nothing is signed here


class ToolUse(msgspec.Struct, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: msgspec.Raw | dict[str, Any]


Block = Text | Thinking | ToolUse


# --- the message


class OutputTokensDetails(msgspec.Struct, frozen=True):
    thinking_tokens: int = 0


class Usage(msgspec.Struct, frozen=True):
    """As Anthropic counts: `input_tokens` does not include tokens from the prefix cache."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()


class Message(msgspec.Struct, tag_field="type", tag="message"):
    id: str
    model: str
    role: Literal["assistant"] = "assistant"
    content: list[Block] = []
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: Usage = Usage(0, 0)
    ended_by: str | UnsetType = UNSET  # our addition: "timeout"
    degraded: Degraded | UnsetType = UNSET  # our addition
    inexact_continuation: bool | UnsetType = UNSET  # our addition


class TokenCount(msgspec.Struct):
    input_tokens: int


# --- events


class MessageStart(msgspec.Struct, tag_field="type", tag="message_start"):
    message: Message


class Ping(msgspec.Struct, tag_field="type", tag="ping"): ...


class BlockStart(msgspec.Struct, tag_field="type", tag="content_block_start"):
    index: int
    content_block: Block


class TextDelta(msgspec.Struct, tag_field="type", tag="text_delta"):
    text: str


class ThinkingDelta(msgspec.Struct, tag_field="type", tag="thinking_delta"):
    thinking: str


class InputDelta(msgspec.Struct, tag_field="type", tag="input_json_delta"):
    partial_json: str


class BlockDelta(msgspec.Struct, tag_field="type", tag="content_block_delta"):
    index: int
    delta: TextDelta | ThinkingDelta | InputDelta


class BlockStop(msgspec.Struct, tag_field="type", tag="content_block_stop"):
    index: int


class StopDelta(msgspec.Struct):
    stop_reason: StopReason
    stop_sequence: str | None
    ended_by: str | UnsetType = UNSET


class MessageDelta(msgspec.Struct, tag_field="type", tag="message_delta"):
    delta: StopDelta
    usage: Usage
    degraded: Degraded | UnsetType = UNSET
    inexact_continuation: bool | UnsetType = UNSET


class MessageStop(msgspec.Struct, tag_field="type", tag="message_stop"): ...


Event = MessageStart | Ping | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop


# --- errors


class ErrorDetail(msgspec.Struct):
    type: str
    message: str


class Error(msgspec.Struct, tag_field="type", tag="error"):
    error: ErrorDetail
