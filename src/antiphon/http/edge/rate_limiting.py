"""Counts requests per API key, refuses those over the rate, and reports the limits in OpenAI's headers."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.errors import RateLimited
from antiphon.http.edge.authentication import is_admin, is_from_peer, key_name
from antiphon.http.errors import error_response
from antiphon.metrics import Metrics
from antiphon.rates import Rates


class RateLimiting:
    """Middleware that counts POST requests, refuses those over the rate, and adds the limits to every response.

    Requests with an admin key are not counted, nor those that another server has counted and passed on.
    """

    def __init__(self, app: ASGIApp, rates: Rates, metrics: Metrics) -> None:
        self._app = app
        self._rates = rates
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or is_admin(scope) or is_from_peer(scope):
            await self._app(scope, receive, send)
            return
        key = key_name(scope)

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._rates.headers(key)]
            await send(message)

        app = self._app
        try:
            self._rates.take_request(key)
        except RateLimited as error:
            self._metrics.count_rate_limited(key, error.type)
            app = error_response(error, scope)
        await app(scope, receive, send_with_limits)
