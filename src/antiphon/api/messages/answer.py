"""Writes messages from pieces of text, whole or as events."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

from msgspec import UNSET

from antiphon.api.context import Context
from antiphon.api.events import MEDIA_TYPE, named_event
from antiphon.api.exchange import Exchange
from antiphon.api.generation import Generation
from antiphon.api.messages import shapes
from antiphon.api.messages.blocks import Content
from antiphon.api.messages.errors import error_event
from antiphon.api.messages.request import MessagesRequest
from antiphon.api.messages.understand import translate
from antiphon.api.pieces import Piece, Tally
from antiphon.api.shapes import encoder
from antiphon.api.threads import is_long
from antiphon.api.usage import degraded_of, inexact_of
from antiphon.errors import AntiphonError
from antiphon.metrics import RequestAccount


class MessageAnswer:
    """One message."""

    def __init__(self, model: str) -> None:
        self._content = Content()
        self._message = shapes.Message(f"msg_{secrets.token_hex(16)}", model)
        self._stop_reason: shapes.StopReason = "end_turn"
        self._stop_sequence: str | None = None
        self.media_type, self.last, self.keep_alive = MEDIA_TYPE, b"", _encoded(shapes.Ping())

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
        self._message.degraded, self._message.inexact_continuation = degraded_of(generation), inexact_of(generation)
        return encoder.encode(self._message)

    async def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """The message as events."""
        begun = False
        async for piece in generation:
            if not begun:  # not earlier, since the number of cached tokens is only known now
                begun = True
                yield self._start(generation.tally)
                yield _encoded(shapes.Ping())
            for event in self._push(piece):
                yield _encoded(event)
        for event in self._content.close():
            yield _encoded(event)
        stop = shapes.StopDelta(self._stop_reason, self._stop_sequence, self._message.ended_by)
        usage, degraded, inexact = _usage(generation.tally), degraded_of(generation), inexact_of(generation)
        yield _encoded(shapes.MessageDelta(stop, usage, degraded, inexact))
        yield _encoded(shapes.MessageStop())

    def _start(self, tally: Tally) -> bytes:
        self._message.usage = _usage(replace(tally, completion=0, reasoning=0))
        return _encoded(shapes.MessageStart(self._message))

    def failed(self, error: AntiphonError) -> bytes:
        """The event that ends a failed stream."""
        return error_event(error)

    def _push(self, piece: Piece) -> Iterator[shapes.Event]:
        if piece.finish_reason is not None:
            self._stop_sequence = piece.stop_string
            self._message.ended_by = piece.ended_by or UNSET
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


async def begin(context: Context, fields: dict[str, Any], account: RequestAccount) -> Exchange:
    """Validate a request and hand its job to the engine.

    Raises:
        AntiphonError: the request is refused. The engine did not get it.
    """
    context.facts()
    body = await context.validated(MessagesRequest, fields)
    translation = await context.if_long(is_long(fields), translate, body)
    _, generation = await translation.start(context, account)
    return Exchange(generation, MessageAnswer(context.model.name), bool(body.stream), body.ignored)
