"""The answers of `POST /generate` and `POST /generate-batch`."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from antiphon.api.shapes import Degraded


class Answer(msgspec.Struct):
    response: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    latency_ms: float  # from reading the request to the last token
    ended_by: str | UnsetType = UNSET  # "timeout"
    reasoning: str | UnsetType = UNSET  # a reasoning model's thought
    degraded: Degraded | UnsetType = UNSET
    inexact_continuation: bool | UnsetType = UNSET


class Fault(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class BatchAnswer(Answer, kw_only=True):
    request_id: str | int


class BatchFault(msgspec.Struct):
    request_id: str | int
    error: Fault
    latency_ms: float


class Results(msgspec.Struct):
    results: list[BatchAnswer | BatchFault]
    latency_ms: float
