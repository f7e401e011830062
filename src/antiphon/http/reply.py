"""Turns an HTTP request into an exchange, and the exchange into a response.

A generation is aborted as soon as the connection closes, even between tokens, unless it is detached from it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from fastapi import Request, Response

from antiphon.api.context import Context
from antiphon.api.degrading import header_of
from antiphon.api.exchange import Detached, Exchange
from antiphon.api.schema import Schema
from antiphon.api.shapes import Degraded
from antiphon.http.context import account_of, context_of, read_json_object, with_body
from antiphon.http.early_refusal import refuse_early
from antiphon.http.ignored_fields import note_ignored
from antiphon.http.sse import EventStream, answer_or_disconnect
from antiphon.metrics import RequestAccount

DEGRADED_HEADER = "x-antiphon-degraded"

T = TypeVar("T", bound=Schema)
Begin = Callable[[Context, dict[str, Any], RequestAccount], Awaitable[Exchange | Detached]]


async def answer(request: Request, endpoint: str, begin: Begin, fields: dict[str, Any] | None = None) -> Response:
    """Answer `request` with the API of `begin`; `endpoint` is its name in the metrics.

    `fields` is the body, if it has already been read.
    """
    context = context_of(request)
    with account_of(request, endpoint) as account:
        context.check_load()  # before the body is read
        check = partial(refuse_early, request, may_be_detached=endpoint == "responses")
        if fields is None:
            fields = await read_json_object(request, before_decoding=check)
        else:
            check()
        exchange = await begin(with_body(context, request), fields, account)
    note_ignored(request, exchange.ignored)
    if isinstance(exchange, Detached):
        return with_degraded(_detached(exchange), exchange.degraded)
    generation = exchange.generation
    if exchange.is_streamed:
        stream = EventStream(exchange.answer.stream(generation), exchange.answer, generation)
        return with_degraded(stream, generation.degraded)
    response = await answer_or_disconnect(request, generation, exchange.answer.whole(generation))
    return with_degraded(response, generation.degraded)


def _detached(exchange: Detached) -> Response:
    if exchange.stream is not None:
        return EventStream(exchange.stream, exchange.format)
    return Response(exchange.body, media_type="application/json")


def with_degraded(response: Response, degraded: Degraded | None) -> Response:
    """The response, with a header that tells the limits that were lowered because of the load."""
    if degraded is not None:
        response.headers[DEGRADED_HEADER] = header_of(degraded)
    return response


async def read(
    request: Request, schema: type[T], fields: dict[str, Any] | None = None, *, any_media_type: bool = False
) -> T:
    """The request's body as `schema`; `fields` is the body, if it has already been read.

    Raises the same errors as `read_json_object`, and InvalidRequest if the body is not valid.
    """
    context = context_of(request)
    if fields is None:
        fields = await read_json_object(request, any_media_type=any_media_type)
    body = await context.validated(schema, fields)
    note_ignored(request, body.ignored)
    return body
