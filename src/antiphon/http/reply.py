"""Turns an HTTP request into an exchange, and the exchange into a response.

A generation is aborted as soon as the connection closes, even between tokens, unless it is detached from it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request, Response

from antiphon.api.context import Context
from antiphon.api.exchange import Detached, Exchange
from antiphon.api.schema import Schema
from antiphon.http.context import account_of, context_of, read_json_object
from antiphon.http.ignored_fields import note_ignored
from antiphon.http.sse import EventStream, answer_or_disconnect
from antiphon.metrics import RequestAccount

T = TypeVar("T", bound=Schema)
Begin = Callable[[Context, dict[str, Any], RequestAccount], Awaitable[Exchange | Detached]]


async def answer(request: Request, endpoint: str, begin: Begin, fields: dict[str, Any] | None = None) -> Response:
    """Answer `request` with the API of `begin`; `endpoint` is its name in the metrics.

    `fields` is the body, if it has already been read.
    """
    context = context_of(request)
    with account_of(request, endpoint) as account:
        context.check_engines()  # before the body is read
        if fields is None:
            fields = await read_json_object(request)
        exchange = await begin(context, fields, account)
    note_ignored(request, exchange.ignored)
    if isinstance(exchange, Detached):
        if exchange.stream is not None:
            return EventStream(exchange.stream, exchange.format)
        return Response(exchange.body, media_type="application/json")
    if exchange.is_streamed:
        return EventStream(exchange.answer.stream(exchange.generation), exchange.answer, exchange.generation)
    return await answer_or_disconnect(request, exchange.generation, exchange.answer.whole(exchange.generation))


async def read(request: Request, schema: type[T], *, any_media_type: bool = False) -> T:
    """The request's body as `schema`. Raises the same errors as `read_json_object`, and InvalidRequest if invalid."""
    context = context_of(request)
    body = await context.validated(schema, await read_json_object(request, any_media_type=any_media_type))
    note_ignored(request, body.ignored)
    return body
