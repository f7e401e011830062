"""`POST /v1/messages`, and `POST /v1/messages/count_tokens`.

Owns the way of one request and the writing of its message, whole or streamed. The versions that Anthropic's clients
send in headers are none of its business. Errors of these routes have Anthropic's shape, wherever they were raised.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

from fastapi import APIRouter, Request, Response

from antiphon.errors import AntiphonError
from antiphon.http.anthropic_messages import shapes
from antiphon.http.anthropic_messages.conversation import translate
from antiphon.http.anthropic_messages.output import Content
from antiphon.http.anthropic_messages.schemas import CountTokensRequest, MessagesRequest
from antiphon.http.chat import prompt_of, understand
from antiphon.http.errors import validate
from antiphon.http.front import front_of
from antiphon.http.generation import Generation, Piece, Tally, start_generation
from antiphon.http.limits import read_json_object
from antiphon.http.openapi import json_body
from antiphon.http.responses import encoder
from antiphon.http.sse import EventStream, answer_or_disconnect, named_event

PATH = "/v1/messages"

router = APIRouter()


@router.post(PATH, openapi_extra=json_body(MessagesRequest))
async def create_message(request: Request) -> Response:
    """Answer a conversation."""
    front = front_of(request)
    with front.account(request, "messages") as account:
        front.facts()
        body = validate(MessagesRequest, await read_json_object(request, front.settings.max_body_bytes))
        translation = translate(body)
        with translation.blaming():
            job = await understand(front, translation.chat)
            generation = start_generation(front, job, account)
    writer = _Writer(front.model.name)
    if body.stream:
        ping = _encoded(shapes.Ping())
        return EventStream(generation, writer.stream(generation), failed=error_event, last=b"", keep_alive=ping)
    return await answer_or_disconnect(request, generation, writer.whole(generation))


@router.post(f"{PATH}/count_tokens", openapi_extra=json_body(CountTokensRequest))
async def count_tokens(request: Request) -> Response:
    """How many tokens a conversation's prompt has."""
    front = front_of(request)
    front.facts()
    body = validate(CountTokensRequest, await read_json_object(request, front.settings.max_body_bytes))
    translation = translate(body)
    with translation.blaming():
        prompt = await prompt_of(front, translation.chat)
    return Response(encoder.encode(shapes.TokenCount(len(prompt.token_ids))), media_type="application/json")


class _Writer:
    """Writes one message."""

    def __init__(self, model: str) -> None:
        self._content = Content()
        self._message = shapes.Message(f"msg_{secrets.token_hex(16)}", model)
        self._stop_reason: shapes.StopReason = "end_turn"
        self._stop_sequence: str | None = None

    async def whole(self, generation: Generation) -> bytes:
        """The message as one JSON object."""
        async for piece in generation:
            for _ in self._push(piece):
                pass
        for _ in self._content.close():
            pass
        self._message.content = self._content.blocks
        self._message.stop_reason, self._message.stop_sequence = self._stop_reason, self._stop_sequence
        self._message.usage = _usage(generation.tally)
        return encoder.encode(self._message)

    async def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """The message as events."""
        self._message.usage = _usage(generation.tally)
        yield _encoded(shapes.MessageStart(self._message))
        yield _encoded(shapes.Ping())
        async for piece in generation:
            for event in self._push(piece):
                yield _encoded(event)
        for event in self._content.close():
            yield _encoded(event)
        stop = shapes.StopDelta(self._stop_reason, self._stop_sequence)
        yield _encoded(shapes.MessageDelta(stop, _usage(generation.tally)))
        yield _encoded(shapes.MessageStop())

    def _push(self, piece: Piece) -> Iterator[shapes.Event]:
        if piece.finish_reason is not None:
            self._stop_sequence = piece.stop_string
            cut = piece.stop_string is not None
            self._stop_reason = "stop_sequence" if cut else _STOP_REASONS[piece.finish_reason]
        return self._content.push(piece)


_STOP_REASONS: dict[str, shapes.StopReason] = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def _encoded(event: shapes.Event) -> bytes:
    return named_event(str(event.__struct_config__.tag), encoder.encode(event))


def _usage(tally: Tally) -> shapes.Usage:
    return shapes.Usage(
        tally.prompt - tally.cached,
        tally.completion,
        cache_read_input_tokens=tally.cached,
        output_tokens_details=shapes.OutputTokensDetails(tally.reasoning),
    )


# --- errors

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}


def error_body(error: AntiphonError) -> bytes:
    """`error` in Anthropic's shape, which has no place for the field's name but the message."""
    kind = _ERROR_TYPES.get(error.http_status, "invalid_request_error")
    is_named = error.param is None or error.param in error.message
    message = error.message if is_named else f"{error.param}: {error.message}"
    return encoder.encode(shapes.Error(shapes.ErrorDetail(kind, message)))


def error_event(error: AntiphonError) -> bytes:
    """The event that ends a stream which cannot go on."""
    return named_event("error", error_body(error))
