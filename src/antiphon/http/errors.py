"""Turns errors into HTTP responses, in the shape of the API that was called.

Handles our exceptions and the router's. The message of an unexpected exception is never sent to a client: the exception
is logged here, once, and answered with a plain 500.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.api.errors import error_body, internal_error
from antiphon.errors import (
    AntiphonError,
    InvalidRequest,
    NotReady,
    Overloaded,
)

logger = logging.getLogger(__name__)

# A request with this header set to 503 gets 503 where an API has another status for Overloaded, which the response then
# has in the same header. Proxies can be told to try another server after 503, but not after Anthropic's 529.
OVERLOADED_STATUS_HEADER = b"x-overloaded-status"

BodyWriter = Callable[[AntiphonError], bytes]


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """How an API writes errors."""

    body: BodyWriter = error_body
    overloaded_status: int = Overloaded.http_status  # the status of Overloaded


def error_response(error: AntiphonError, scope: Scope) -> Response:
    """The response for `error`, with headers that say when to try again, if that may help."""
    headers = _retry_headers(error)
    shape = _shape(scope)
    status = shape.overloaded_status if isinstance(error, Overloaded) else error.http_status
    if status != error.http_status and (OVERLOADED_STATUS_HEADER, b"503") in scope["headers"]:
        headers[OVERLOADED_STATUS_HEADER.decode()] = str(status)
        status = error.http_status
    return Response(shape.body(error), status, headers, media_type="application/json")


def _retry_headers(error: AntiphonError) -> dict[str, str]:
    """When to try again: in whole seconds, rounded up, and exactly, as OpenAI's and Anthropic's clients prefer it."""
    if error.retry_after is not None:
        return {
            "Retry-After": str(max(1, math.ceil(error.retry_after))),
            "retry-after-ms": str(max(1, math.ceil(1000 * error.retry_after))),
        }
    return {"x-should-retry": "false"} if isinstance(error, Overloaded) else {}


def connection_error_body(error: AntiphonError) -> bytes:
    """The body for a connection that is refused before its request is read: OpenAI's shape, as the API is not known."""
    return error_body(error)


def add_error_handlers(app: FastAPI, shapes: Mapping[str, ErrorShape]) -> None:
    """Answer our errors, the router's 404 and 405, and unexpected exceptions.

    They have OpenAI's shape, or for routes below a path in `shapes` the shape given there.
    """
    app.state.error_shapes = shapes
    app.add_exception_handler(AntiphonError, _on_antiphon_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_middleware(InternalErrors)


class InternalErrors:
    """Answers unexpected exceptions with a 500 and logs them.

    Starlette's own handler raises the exception again, and the server would log it a second time.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception:
            if scope["type"] != "http":
                raise
            logger.exception("unexpected error in %s %s", scope["method"], scope["path"])
            if not started:
                await error_response(internal_error(), scope)(scope, receive, send)


async def _on_antiphon_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AntiphonError)
    if error.http_status >= 500:
        # Requests are expected while the server is not ready, and clients that poll would fill the log.
        level = logging.DEBUG if isinstance(error, NotReady) else logging.WARNING
        logger.log(level, "%s %s: %s", request.method, request.url.path, error.message)
    return error_response(error, request.scope)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {request.url.path}"
    messages = {
        404: (f"Unknown request URL: {asked}. See /v1/models, /v1/chat/completions, /v1/completions.", "unknown_url"),
        405: (f"Method not allowed: {asked}. See the Allow header.", "method_not_allowed"),
    }
    message, code = messages.get(error.status_code, (str(error.detail), None))
    response = error_response(_FromRouter(message, error.status_code, code), request.scope)
    response.headers.update(error.headers or {})
    return response


class _FromRouter(InvalidRequest):
    """An error of the router, such as an unknown path."""

    def __init__(self, message: str, http_status: int, code: str | None) -> None:
        super().__init__(message)
        self.http_status, self.code = http_status, code


def _shape(scope: Scope) -> ErrorShape:
    for path, shape in scope["app"].state.error_shapes.items():
        if scope["path"] == path or scope["path"].startswith(f"{path}/"):
            return cast(ErrorShape, shape)
    return ErrorShape()
