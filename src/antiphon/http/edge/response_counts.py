"""Counts every HTTP response in the metrics, by method, route and status.

The labels have a small fixed set of values: a path as documented, with placeholders for ids, and an ordinary method.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.metrics import Metrics

GONE = 499  # nginx's status for a client that disconnected before the response
OTHER = "other"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class ResponseCounts:
    """Middleware that counts a response when it begins, or its request when the client leaves before that."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_counted = False

        def count(status: int) -> None:
            nonlocal is_counted
            is_counted = True
            method = scope["method"] if scope["method"] in _METHODS else OTHER
            route = getattr(scope.get("route"), "path", None) or OTHER
            self._metrics.http_responses.labels(method, route, str(status)).inc()

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_and_count)
        finally:
            if not is_counted:
                count(GONE)
