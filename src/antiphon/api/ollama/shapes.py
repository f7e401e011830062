"""Answers in Ollama's format. Durations are in nanoseconds."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from antiphon.api.shapes import Degraded


class CalledFunction(msgspec.Struct):
    name: str
    arguments: msgspec.Raw  # a JSON object


class ToolCall(msgspec.Struct):
    function: CalledFunction
    id: str | UnsetType = UNSET


class Message(msgspec.Struct):
    role: Literal["assistant"] = "assistant"
    content: str = ""
    thinking: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET


class Ending(msgspec.Struct):
    """Further fields of the last line of an answer, or of the only one."""

    done_reason: str | UnsetType = UNSET
    ended_by: str | UnsetType = UNSET  # our addition: "timeout"
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET
    degraded: Degraded | UnsetType = UNSET  # our addition
    inexact_continuation: bool | UnsetType = UNSET  # our addition


class ChatLine(Ending, kw_only=True):
    model: str
    created_at: str
    message: Message
    done: bool


class GenerateLine(Ending, kw_only=True):
    model: str
    created_at: str
    response: str
    thinking: str | UnsetType = UNSET
    done: bool


class Details(msgspec.Struct):
    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class Model(msgspec.Struct):
    name: str
    model: str
    modified_at: str
    size: int  # bytes
    digest: str
    details: Details
    expires_at: str | UnsetType = UNSET
    size_vram: int | UnsetType = UNSET
    context_length: int | UnsetType = UNSET


class Models(msgspec.Struct):
    models: list[Model]


class Shown(msgspec.Struct):
    modelfile: str
    parameters: str
    template: str
    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class Version(msgspec.Struct):
    version: str


class Error(msgspec.Struct):
    error: str
