"""Writes a response from pieces of text, whole or as events, and stores it.

A client that has received `response.completed` can continue that response at once. A failed response is not stored.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
from pydantic import TypeAdapter

from antiphon.api.context import Context
from antiphon.api.events import COMMENT, MEDIA_TYPE, named_event
from antiphon.api.exchange import Exchange
from antiphon.api.generation import Generation
from antiphon.api.job import Job
from antiphon.api.logprobs import token_logprob
from antiphon.api.pieces import Piece, Tally
from antiphon.api.response_store import Kept
from antiphon.api.responses import shapes
from antiphon.api.responses.items import Output, item_id
from antiphon.api.responses.request import InputItem, ResponseRequest
from antiphon.api.responses.understand import items_of, translate
from antiphon.api.shapes import TokenLogprob, encoder
from antiphon.api.threads import LONG_CHARACTERS, is_long
from antiphon.api.translation import Translation
from antiphon.errors import AntiphonError, InvalidRequest, ResponseNotFound
from antiphon.metrics import RequestAccount

_items = TypeAdapter(list[InputItem])


def _previous_response(context: Context, body: ResponseRequest) -> Kept | None:
    if not body.previous_response_id:
        return None
    kept = stored_response(context, body.previous_response_id, param="previous_response_id")
    most = context.responses.max_conversation_bytes
    if kept.conversation_bytes > most:
        raise InvalidRequest(
            f"The conversation up to this response is longer than {most:,} bytes, so it cannot be continued by its id; "
            "send a shorter one as 'input'.",
            param="previous_response_id",
        )
    return kept


def stored_response(context: Context, id: str, *, param: str = "response_id") -> Kept:
    """The stored response with that id. Raises ResponseNotFound."""
    kept = context.responses.get(id)
    if kept is None:
        store = context.responses
        raise ResponseNotFound(
            f"There is no response {id[:100]!r}. This server stores the last {store.max_responses} responses, in at "
            f"most {store.max_bytes} bytes of memory, except those with 'store': false, until it stops. Send the whole "
            "conversation as 'input' instead.",
            param=param,
        )
    return kept


def _items_before(before: Kept | None) -> list[InputItem]:
    turns = before.conversation if before else ()
    return [item for turn in turns for item in _items.validate_json(turn)]


class ResponseAnswer:
    """One request's response; stored unless the request says otherwise."""

    media_type, last, keep_alive = MEDIA_TYPE, b"", COMMENT

    def __init__(self, context: Context, body: ResponseRequest, job: Job, before: Kept | None) -> None:
        self._context = context
        self._body = body
        self._before = before
        self._tokenizer = context.model.text.tokenizer
        self._output = Output()
        self._response = _asked(body, job, context.model.name)
        self._response.store = body.store is not False and context.responses.max_responses > 0
        self._response.output = self._output.items
        self._sequence_number = 0
        self._finish_reason = ""

    async def whole(self, generation: Generation) -> bytes:
        """The response as one JSON object."""
        async for piece in generation:
            for _ in self._push(piece):
                pass
        for _ in self._close(generation.tally):
            pass
        return self._keep()

    async def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """The response as numbered events."""
        yield self._event(shapes.Created(response=self._response))
        yield self._event(shapes.InProgress(response=self._response))
        async for piece in generation:
            for event in self._push(piece):
                yield self._event(event)
        for event in self._close(generation.tally):
            yield self._event(event)
        self._keep()
        over = shapes.Completed if self._response.status == "completed" else shapes.Incomplete
        yield self._event(over(response=self._response))

    def failed(self, error: AntiphonError) -> bytes:
        """The event that ends a failed stream."""
        self._response.status = "failed"
        self._response.error = shapes.ResponseError(error.code or error.type, error.message)
        return self._event(shapes.Failed(response=self._response))

    def _push(self, piece: Piece) -> Iterator[shapes.Event]:
        self._finish_reason = piece.finish_reason or self._finish_reason
        return self._output.push(piece, self._logprobs(piece))

    def _close(self, tally: Tally) -> Iterator[shapes.Event]:
        cut = self._finish_reason == "length"
        self._response.status = "incomplete" if cut else "completed"
        yield from self._output.close(self._response.status)
        if cut:
            self._response.incomplete_details = shapes.IncompleteDetails("max_output_tokens")
        else:
            self._response.completed_at = int(time.time())
        self._response.usage = _usage(tally)

    def _keep(self) -> bytes:
        """The response as JSON; also stores it, unless the request has `store` false."""
        encoded = encoder.encode(self._response)
        if self._response.store:
            sent = msgspec.Raw(_items.dump_json(list(items_of(self._body)))[1:-1])
            answered = msgspec.Raw(encoder.encode(self._output.items)[1:-1])
            items = b"[" + bytes(sent) + b"," + bytes(answered) + b"]"
            self._context.responses.keep(self._response.id, encoded, items, self._before)
        return encoded

    def _event(self, event: shapes.Event) -> bytes:
        event.sequence_number = self._sequence_number
        self._sequence_number += 1
        return named_event(str(type(event).__struct_config__.tag), encoder.encode(event))

    def _logprobs(self, piece: Piece) -> list[TokenLogprob]:
        if not self._body.wants_logprobs:
            return []
        return [token_logprob(self._tokenizer, scored) for scored in piece.scored]


def _asked(body: ResponseRequest, job: Job, model: str) -> shapes.ResponseBody:
    """The response at its beginning, with the request's settings."""
    sampling = job.prompts[0].sampling
    choice = body.tool_choice
    format: dict[str, Any] = {"type": "text"}
    if body.text and body.text.format:
        format = body.text.format.model_dump(by_alias=True, exclude_none=True)
    return shapes.ResponseBody(
        item_id("resp"),
        int(time.time()),
        model,
        instructions=body.instructions,
        previous_response_id=body.previous_response_id,
        max_output_tokens=body.max_output_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_logprobs=body.top_logprobs or 0,
        tools=[{"parameters": None, "strict": None, **tool.model_dump()} for tool in body.tools or ()],
        tool_choice=choice if isinstance(choice, str) else choice.model_dump() if choice else "auto",
        parallel_tool_calls=body.parallel_tool_calls is not False,
        text={"format": format},
        reasoning={"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        metadata=body.metadata or {},
        user=body.user,
    )


def _usage(tally: Tally) -> shapes.Usage:
    return shapes.Usage(
        tally.prompt,
        shapes.InputTokensDetails(tally.cached),
        tally.completion,
        shapes.OutputTokensDetails(tally.reasoning),
        tally.prompt + tally.completion,
    )


def conversation(context: Context, body: ResponseRequest) -> Translation:
    """The request as a chat request, after the conversation that it continues. Raises ResponseNotFound."""
    return translate(body, _items_before(_previous_response(context, body)))


async def begin(context: Context, fields: dict[str, Any], account: RequestAccount) -> Exchange:
    """Validate a request and hand its job to the engine.

    Raises:
        AntiphonError: the request is refused. The engine did not get it.
    """
    context.facts()
    body = await context.validated(ResponseRequest, fields)
    before = _previous_response(context, body)
    long = is_long(fields) or (before is not None and before.conversation_bytes > LONG_CHARACTERS)
    translation = await context.if_long(long, lambda: translate(body, _items_before(before)))
    job, generation = await translation.start(context, account)
    return Exchange(generation, ResponseAnswer(context, body, job, before), bool(body.stream), body.ignored)
