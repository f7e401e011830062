"""Answers of llama-server's own routes, with the fields that have a meaning here."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from antiphon.api.shapes import Degraded, PromptProgressShape, QueueShape, Timings, TokenLogprob


class Completion(msgspec.Struct):
    """A whole answer, or one part of a stream. Only the last part has the usage, timings and reason for stopping."""

    index: int
    content: str
    tokens: list[int]
    stop: bool
    model: str
    completion_probabilities: list[TokenLogprob] | UnsetType = UNSET
    stop_type: Literal["eos", "limit", "word"] | UnsetType = UNSET
    ended_by: str | UnsetType = UNSET  # our addition: "timeout"
    stopping_word: str | UnsetType = UNSET
    tokens_predicted: int | UnsetType = UNSET
    tokens_evaluated: int | UnsetType = UNSET
    tokens_cached: int | UnsetType = UNSET
    truncated: bool | UnsetType = UNSET
    timings: Timings | UnsetType = UNSET
    degraded: Degraded | UnsetType = UNSET  # our addition
    inexact_continuation: bool | UnsetType = UNSET  # our addition
    queue: QueueShape | UnsetType = UNSET  # our addition, on request, in parts without text
    prompt_progress: PromptProgressShape | UnsetType = UNSET  # on request, likewise


class Props(msgspec.Struct):
    default_generation_settings: dict[str, Any]
    total_slots: int
    model_path: str  # the model's name; paths of this machine are not disclosed
    model_alias: str
    chat_template: str
    bos_token: str
    eos_token: str
    build_info: str
    is_sleeping: bool = False


class Slot(msgspec.Struct):
    """One of the answers that can be computed at once. Its client and its text are not disclosed."""

    id: int
    n_ctx: int
    is_processing: bool
