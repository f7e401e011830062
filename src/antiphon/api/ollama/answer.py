"""Writes Ollama's lines of JSON from pieces of text, whole or streamed.

A call is sent once it is complete, since Ollama's clients read its arguments as an object.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from antiphon.api.completions.request import CompletionRequest
from antiphon.api.completions.understand import understand as understand_completion
from antiphon.api.context import Context
from antiphon.api.exchange import Exchange
from antiphon.api.generation import Generation
from antiphon.api.ollama import shapes
from antiphon.api.ollama.models import check_name
from antiphon.api.ollama.request import OllamaChatRequest, OllamaGenerateRequest
from antiphon.api.ollama.understand import completion_fields, translate_chat, translate_prompt
from antiphon.api.pieces import Piece
from antiphon.api.shapes import encoder
from antiphon.api.submission import start_generation
from antiphon.api.threads import is_long
from antiphon.api.usage import degraded_of, inexact_of
from antiphon.errors import AntiphonError
from antiphon.metrics import RequestAccount

Line = shapes.ChatLine | shapes.GenerateLine

_DONE_REASONS = {"tool_calls": "stop"}


def error_body(error: AntiphonError) -> bytes:
    """`error` in Ollama's format."""
    return encoder.encode(shapes.Error(error.message))


class OllamaAnswer:
    """One request's answer, as the lines of `/api/chat` or of `/api/generate`."""

    media_type, last, keep_alive = "application/x-ndjson", b"", b""

    def __init__(self, model: str, *, is_chat: bool) -> None:
        self._model = model
        self._is_chat = is_chat
        self._began_at = time.monotonic()
        self._calls: list[shapes.ToolCall] = []
        self._arguments: list[str] = []
        self._finish_reason = ""
        self._ended_by: str | UnsetType = UNSET

    async def whole(self, generation: Generation) -> bytes:
        """The answer as one JSON object."""
        content, thought = [], []
        async for piece in generation:
            content.append(piece.content)
            thought.append(piece.reasoning)
            self._read_calls(piece)
        text, thinking, calls = "".join(content), "".join(thought), self._complete_calls()
        return encoder.encode(self._line(text, thinking, calls, self._ending(generation)))

    async def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """The answer as lines, the last of which has no text."""
        async for piece in generation:
            self._read_calls(piece)
            if piece.content or piece.reasoning:
                yield encoder.encode(self._line(piece.content, piece.reasoning)) + b"\n"
        if calls := self._complete_calls():
            yield encoder.encode(self._line("", calls=calls)) + b"\n"
        yield encoder.encode(self._line("", ending=self._ending(generation))) + b"\n"

    def failed(self, error: AntiphonError) -> bytes:
        """The line that ends a failed stream."""
        return error_body(error) + b"\n"

    def _read_calls(self, piece: Piece) -> None:
        self._finish_reason = piece.finish_reason or self._finish_reason
        self._ended_by = piece.ended_by or self._ended_by
        for delta in piece.tool_calls:
            if delta.id is not None:
                function = shapes.CalledFunction(delta.name or "", msgspec.Raw(b"{}"))
                self._calls.append(shapes.ToolCall(function, delta.id))
                self._arguments.append("")
            self._arguments[-1] += delta.arguments

    def _complete_calls(self) -> list[shapes.ToolCall]:
        """The complete calls. A call that was cut off is left out, since its arguments are not an object."""
        complete = []
        for call, arguments in zip(self._calls, self._arguments, strict=True):
            try:
                msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
            except msgspec.DecodeError:
                continue
            call.function.arguments = msgspec.Raw(arguments.encode())
            complete.append(call)
        return complete

    def _line(
        self,
        text: str,
        thinking: str = "",
        calls: Sequence[shapes.ToolCall] = (),
        ending: Mapping[str, Any] | None = None,
    ) -> Line:
        return _line(self._model, text, thinking, calls, ending, is_chat=self._is_chat)

    def _ending(self, generation: Generation) -> dict[str, Any]:
        tally, times = generation.tally, generation.times
        return {
            "done_reason": _DONE_REASONS.get(self._finish_reason, self._finish_reason),
            "ended_by": self._ended_by,
            "total_duration": _nanoseconds(time.monotonic() - self._began_at),
            "load_duration": 0,
            "prompt_eval_count": tally.prompt,
            "prompt_eval_duration": _nanoseconds(times.prefill),
            "eval_count": tally.completion,
            "eval_duration": _nanoseconds(times.decode),
            "degraded": degraded_of(generation),
            "inexact_continuation": inexact_of(generation),
        }


def loaded_line(model: str, *, is_chat: bool) -> Line:
    """The answer to a request that only loads the model."""
    return _line(model, "", "", (), {"done_reason": "load"}, is_chat=is_chat)


def _line(
    model: str,
    text: str,
    thinking: str,
    calls: Sequence[shapes.ToolCall],
    ending: Mapping[str, Any] | None,
    *,
    is_chat: bool,
) -> Line:
    fields: dict[str, Any] = {"model": model, "created_at": _now(), "done": ending is not None, **(ending or {})}
    if is_chat:
        message = shapes.Message("assistant", text, thinking or UNSET, list(calls) or UNSET)
        return shapes.ChatLine(message=message, **fields)
    return shapes.GenerateLine(response=text, thinking=thinking or UNSET, **fields)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


async def begin_chat(context: Context, fields: dict[str, Any], account: RequestAccount) -> Exchange:
    """Like `begin` of chat, for `/api/chat`."""
    context.facts()
    body = await context.validated(OllamaChatRequest, fields)
    check_name(context, body.model)
    translation = await context.if_long(is_long(fields), translate_chat, body)
    _, generation = await translation.start(context, account)
    return Exchange(generation, OllamaAnswer(context.model.name, is_chat=True), body.is_streamed, body.ignored)


async def begin_generate(context: Context, fields: dict[str, Any], account: RequestAccount) -> Exchange:
    """Like `begin` of chat, for `/api/generate`."""
    context.facts()
    body = await context.validated(OllamaGenerateRequest, fields)
    check_name(context, body.model)
    if body.raw:
        job = await understand_completion(context, await context.reread(CompletionRequest, completion_fields(body)))
        generation = start_generation(context, job, account)
    else:
        translation = await context.if_long(is_long(fields), translate_prompt, body)
        _, generation = await translation.start(context, account)
    return Exchange(generation, OllamaAnswer(context.model.name, is_chat=False), body.is_streamed, body.ignored)
