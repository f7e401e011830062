"""Answers a request for a response: whole, as events, or in the background.

A client that has received `response.completed` can continue that response at once. Unless it runs in the background, a
response that failed, or whose client left, is not stored.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from antiphon.api.context import Context
from antiphon.api.events import COMMENT, MEDIA_TYPE
from antiphon.api.exchange import Detached, Exchange
from antiphon.api.generation import Generation
from antiphon.api.job import Job
from antiphon.api.response_store import Kept
from antiphon.api.responses import shapes
from antiphon.api.responses.background import BackgroundResponse, Follower, Memory
from antiphon.api.responses.event_log import framed
from antiphon.api.responses.request import InputItem, ResponseRequest, sent_items
from antiphon.api.responses.stored import previous_response
from antiphon.api.responses.understand import items_of, translate
from antiphon.api.responses.writer import ResponseWriter
from antiphon.api.shapes import encoder
from antiphon.api.threads import LONG_CHARACTERS, is_long
from antiphon.api.translation import Translation
from antiphon.errors import AntiphonError, InvalidRequest
from antiphon.metrics import RequestAccount


def _items_before(before: Kept | None) -> list[InputItem]:
    turns = before.conversation if before else ()
    return [item for turn in turns for item in sent_items.validate_json(turn)]


def _sent(body: ResponseRequest) -> bytes:
    """The request's items, a JSON array without its brackets."""
    return sent_items.dump_json(list(items_of(body)))[1:-1]


class ResponseAnswer:
    """One request's response; stored unless the request says otherwise."""

    media_type, last, keep_alive = MEDIA_TYPE, b"", COMMENT

    def __init__(self, context: Context, body: ResponseRequest, writer: ResponseWriter, before: Kept | None) -> None:
        self._context = context
        self._body = body
        self._before = before
        self._writer = writer
        self._num_events = 0

    async def whole(self, generation: Generation) -> bytes:
        """The response as one JSON object."""
        async for piece in generation:
            for _ in self._writer.push(piece, generation):
                pass
        for _ in self._writer.close(generation):
            pass
        return self._keep()

    async def stream(self, generation: Generation) -> AsyncIterator[bytes]:
        """The response as numbered events."""
        writer = self._writer
        yield self._event(shapes.Created(response=writer.response))
        yield self._event(shapes.InProgress(response=writer.response))
        async for item in generation.with_progress():
            for event in writer.push(item, generation):
                yield self._event(event)
        for event in writer.close(generation):
            yield self._event(event)
        self._keep()
        yield self._event(writer.end())

    def failed(self, error: AntiphonError) -> bytes:
        """The events that end a failed stream."""
        last = [*self._writer.stop(error, None), self._writer.end()]
        return b"".join(map(self._event, last))

    def _keep(self) -> bytes:
        """The response as JSON; also stores it, unless the request has `store` false."""
        response = self._writer.response
        encoded = encoder.encode(response)
        if response.store:
            sent = _sent(self._body)
            self._context.responses.keep(
                response.id,
                encoded,
                self._writer.conversation(sent),
                self._before,
                asked=b"[" + sent + b"]" if self._writer.continues else None,
                key=self._context.key,
            )
        return encoded

    def _event(self, event: shapes.Event) -> bytes:
        self._num_events += 1
        return framed(self._num_events - 1, event)


def conversation(context: Context, body: ResponseRequest) -> Translation:
    """The request as a chat request, after the conversation that it continues. Raises ResponseNotFound."""
    return translate(body, _items_before(previous_response(context, body)))


async def begin(context: Context, fields: dict[str, Any], account: RequestAccount) -> Exchange | Detached:
    """Validate a request and hand its job to the engine.

    Raises:
        AntiphonError: the request is refused. The engine did not get it.
    """
    context.facts()
    body = await context.validated(ResponseRequest, fields)
    _check_background(context, body)
    before = previous_response(context, body)
    long = is_long(fields) or (before is not None and before.conversation_bytes > LONG_CHARACTERS)
    translation = await context.if_long(long, lambda: translate(body, _items_before(before)))
    job = await translation.understand(context)
    writer = ResponseWriter(context, body, job)
    if body.background:
        return _detached(context, body, job, before, writer, translation, account)
    writer.response.store = writer.response.store and context.responses.max_responses > 0
    generation = translation.generate(context, job, account)
    return Exchange(generation, ResponseAnswer(context, body, writer, before), bool(body.stream), body.ignored)


def _check_background(context: Context, body: ResponseRequest) -> None:
    if body.background and body.store is False:
        message = "'background' is only allowed when the response is stored; leave out 'store', or send true."
        raise InvalidRequest(message, param="background")
    if body.background and context.responses.max_responses == 0:
        message = "'background' is not supported here: this server stores no responses (--max-stored-responses 0)."
        raise InvalidRequest(message, param="background")


def _detached(
    context: Context,
    body: ResponseRequest,
    job: Job,
    before: Kept | None,
    writer: ResponseWriter,
    translation: Translation,
    account: RequestAccount,
) -> Detached:
    """Begin to generate a background response. Raises like `begin`."""
    store, id, sent = context.responses, writer.response.id, _sent(body)
    base_bytes = len(sent) + len(encoder.encode(writer.response))
    memory = Memory(store, id, base_bytes, job.prompts[0].sampling.max_tokens)
    try:
        # Progress is always reported, so that readers learn when the engine begins.
        generation = translation.generate(context, replace(job, reports_progress=True, is_detached=True), account)
    except BaseException:
        store.release(id)
        raise
    running = BackgroundResponse(store, writer, generation, memory, key=context.key, sent=sent, before=before)
    events = running.follow(0) if body.stream else None
    return Detached(running.snapshot(), events, Follower(), body.ignored, job.degraded)
