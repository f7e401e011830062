"""From an HTTP request to the exchange that answers it, and to the response that carries the answer.

It promises that a generation is left, and so aborted, as soon as the connection closes, whether or not a token is due.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response

from antiphon.api.context import Context
from antiphon.api.exchange import Exchange
from antiphon.http.context import account_of, context_of
from antiphon.http.edge.body import read_json_object
from antiphon.http.sse import EventStream, answer_or_disconnect
from antiphon.metrics import RequestAccount

Begin = Callable[[Context, dict[str, Any], RequestAccount], Awaitable[Exchange]]


async def answer(request: Request, endpoint: str, begin: Begin) -> Response:
    """Answer `request` by the API that `begin` belongs to; `endpoint` is its name in the metrics."""
    context = context_of(request)
    with account_of(request, endpoint) as account:
        context.facts()  # NotReady before the body is read
        exchange = await begin(context, await read_json_object(request, context.settings.max_body_bytes), account)
    if exchange.is_streamed:
        return EventStream(exchange)
    return await answer_or_disconnect(request, exchange.generation, exchange.answer.whole(exchange.generation))
