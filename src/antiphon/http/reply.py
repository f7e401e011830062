"""From an HTTP request to the exchange that answers it, and to the response that carries the answer.

It promises that a generation is left, and so aborted, as soon as the connection closes, whether or not a token is due.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request, Response

from antiphon.api.context import Context
from antiphon.api.exchange import Exchange
from antiphon.api.schema import Schema
from antiphon.api.validation import validate
from antiphon.http.context import account_of, context_of
from antiphon.http.edge.body import read_json_object
from antiphon.http.ignored_fields import note_ignored
from antiphon.http.sse import EventStream, answer_or_disconnect
from antiphon.metrics import RequestAccount

T = TypeVar("T", bound=Schema)
Begin = Callable[[Context, dict[str, Any], RequestAccount], Awaitable[Exchange]]


async def answer(request: Request, endpoint: str, begin: Begin, fields: dict[str, Any] | None = None) -> Response:
    """Answer `request` by the API that `begin` belongs to; `endpoint` is its name in the metrics. `fields`: its body,
    where that has been read.
    """
    context = context_of(request)
    with account_of(request, endpoint) as account:
        context.facts()  # NotReady before the body is read
        if fields is None:
            fields = await read_json_object(request, context.settings.max_body_bytes)
        exchange = await begin(context, fields, account)
    note_ignored(request, exchange.ignored)
    if exchange.is_streamed:
        return EventStream(exchange)
    return await answer_or_disconnect(request, exchange.generation, exchange.answer.whole(exchange.generation))


async def read(request: Request, schema: type[T], *, any_media_type: bool = False) -> T:
    """The request's body as `schema`. Raises as `read_json_object`, and InvalidRequest for what does not fit."""
    settings = context_of(request).settings
    fields = await read_json_object(request, settings.max_body_bytes, any_media_type=any_media_type)
    body = validate(schema, fields, strict=settings.strict_fields)
    note_ignored(request, body.ignored)
    return body
