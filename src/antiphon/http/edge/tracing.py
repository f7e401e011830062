"""Gives each request its trace, and tells the client the trace's id.

The trace begins when a request turns out to generate something (`http.context.account_of`). It ends with the response,
or with the last answer if that continues in the background. A response to a traced request has a `traceparent` header,
also if the trace is not sampled. This middleware is only there if traces are on.
"""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.http.edge.authentication import key_name
from antiphon.http.edge.response_counts import GONE
from antiphon.tracing import RequestTrace, Tracer
from antiphon.tracing.attributes import HTTP_METHOD, HTTP_ROUTE, KEY, REQUEST_ID, URL_SCHEME, Value
from antiphon.tracing.records import headers_of

HEADER = b"traceparent"


class Tracing:
    """Middleware that begins and ends the traces of requests."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        attributes: dict[str, Value] = {HTTP_METHOD: scope["method"], URL_SCHEME: scope["scheme"]}
        attributes[REQUEST_ID] = state["request_id"]
        trace = RequestTrace(self._tracer, headers_of(scope["headers"]), time.monotonic(), attributes)
        state["trace"] = trace
        status = GONE

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if trace.header is not None:
                    message["headers"] = [*message["headers"], (HEADER, trace.header.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            trace.responded(status, _known_later(scope))


def trace_of(scope: Scope) -> RequestTrace | None:
    """The request's trace; None if traces are off."""
    trace: RequestTrace | None = scope.get("state", {}).get("trace")
    return trace


def route_of(scope: Scope) -> str:
    """The path as documented, with placeholders for ids; empty if there is no such route."""
    path: str = getattr(scope.get("route"), "path", "")
    return path


def _known_later(scope: Scope) -> dict[str, Value]:
    """What only the layers inside know: the route and the name of the key."""
    known = {HTTP_ROUTE: route_of(scope), KEY: key_name(scope)}
    return {name: value for name, value in known.items() if value}
