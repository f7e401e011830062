"""Every failure in OpenAI's shape, {"error": {"message", "type", "param", "code"}}, or in that of another API's routes.

Owns the translation of our exceptions, pydantic's and the router's into that body. It promises that the message of an
unexpected exception never reaches a client: that one is logged here, once, and answered with a plain 500. It must not
decide what is an error.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.errors import AntiphonError, InvalidRequest, NotReady

_MAX_PARAM_LENGTH = 100  # a field's name in an error may be the sender's own, of any length

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=BaseModel)
BodyWriter = Callable[[AntiphonError], bytes]


def error_body(error: AntiphonError) -> bytes:
    """The body that tells a client of `error`, in OpenAI's shape."""
    told = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return msgspec.json.encode({"error": told})


def internal_error() -> AntiphonError:
    """Stands for a failure that nobody foresaw; says nothing of it."""
    return AntiphonError("The server had an error while processing your request.")


def error_response(error: AntiphonError, scope: Scope) -> Response:
    """`error` as a whole response to the request of `scope`, with Retry-After where coming back would help."""
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    body = _body_writer(scope)(error)
    return Response(body, error.http_status, headers, media_type="application/json")


def validate(model: type[T], body: dict[str, Any], *, from_strings: bool = False) -> T:
    """`body` as a `model`; pydantic's first complaint becomes an InvalidRequest that names the field. `from_strings`:
    numbers and truth values are spelled out, as in a query.
    """
    try:
        return model.model_validate_strings(body) if from_strings else model.model_validate(body)
    except ValidationError as error:
        raise _from_validation(error, body) from None


def add_error_handlers(app: FastAPI, shapes: Mapping[str, BodyWriter]) -> None:
    """Answer ours, the router's 404 and 405, and everything else in OpenAI's shape. Routes below a path in `shapes`
    have the one that stands there.
    """
    app.state.error_shapes = shapes
    app.add_exception_handler(AntiphonError, _on_antiphon_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_middleware(InternalErrors)


class InternalErrors:
    """Answers 500 for what nobody foresaw, and logs it.

    Starlette's own handler for this raises the exception again for the server to print a second time.
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
        # Not being ready is an answer, not an event; who polls would fill the log.
        level = logging.DEBUG if isinstance(error, NotReady) else logging.WARNING
        logger.log(level, "%s %s: %s", request.method, request.url.path, error.message)
    return error_response(error, request.scope)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {request.url.path}"
    messages = {
        404: (f"Unknown request URL: {asked}. See /v1/models, /v1/chat/completions, /v1/completions.", "unknown_url"),
        405: (f"Not allowed to {asked}; see the Allow header for what is.", "method_not_allowed"),
    }
    message, code = messages.get(error.status_code, (str(error.detail), None))
    response = error_response(_FromRouter(message, error.status_code, code), request.scope)
    response.headers.update(error.headers or {})
    return response


class _FromRouter(InvalidRequest):
    """What the router has no place for."""

    def __init__(self, message: str, http_status: int, code: str | None) -> None:
        super().__init__(message)
        self.http_status, self.code = http_status, code


def _body_writer(scope: Scope) -> BodyWriter:
    for path, writer in scope["app"].state.error_shapes.items():
        if scope["path"] == path or scope["path"].startswith(f"{path}/"):
            return cast(BodyWriter, writer)
    return error_body


def _from_validation(error: ValidationError, body: dict[str, Any]) -> InvalidRequest:
    """The first complaint, told of the innermost field; a union complains once for each of its branches."""
    complaints = error.errors(include_url=False, include_input=False, include_context=True)
    first = complaints[0]["loc"][:1]
    located = [
        (_param(_location(each), body, names_a_field=_names_a_field(each)), each)
        for each in complaints
        if each["loc"][:1] == first
    ]
    param = max((param for param, _ in located), key=_depth)
    same = [each for where, each in located if where == param]
    translated = InvalidRequest(_message(param, same), param=param or None)
    translated.code = _CODES.get(same[0]["type"])
    return translated


_CODES = {
    "extra_forbidden": "unknown_parameter",
    "unsupported": "unsupported_parameter",
    "missing": "missing_parameter",
}


def _location(complaint: ErrorDetails) -> tuple[str | int, ...]:
    """Where a complaint belongs; one about several fields together says itself which of them to name."""
    named = complaint.get("ctx", {}).get("param")
    return (*complaint["loc"], named) if named else complaint["loc"]


def _names_a_field(complaint: ErrorDetails) -> bool:
    """Whether a complaint's location ends with a field that may not have been sent."""
    return complaint["type"] in ("missing", "extra_forbidden") or "param" in complaint.get("ctx", {})


def _depth(param: str) -> int:
    return param.count(".") + param.count("[")


def _param(loc: Sequence[str | int], body: object, *, names_a_field: bool) -> str:
    """OpenAI's way of naming a field, `messages[0].content`; drops the branch names that pydantic mixes in."""
    path = ""
    node: Any = body
    for position, key in enumerate(loc):
        if isinstance(key, int) and isinstance(node, list) and key < len(node):
            path += f"[{key}]"
            node = node[key]
        elif isinstance(node, dict) and (key in node or (names_a_field and position == len(loc) - 1)):
            path += f".{key}" if path else str(key)
            node = node.get(key)
    return path[:_MAX_PARAM_LENGTH]


def _message(param: str, complaints: Sequence[ErrorDetails]) -> str:
    kind = complaints[0]["type"]
    if kind == "missing":
        return f"Missing required parameter: '{param}'."
    if kind == "extra_forbidden":
        return f"Unknown parameter: '{param}'."
    if kind in ("unsupported", "conflict"):
        return str(complaints[0]["msg"])
    text = " or ".join(dict.fromkeys(_wish(each["msg"]) for each in complaints))
    return f"Invalid value for '{param}': {text}." if param else f"Invalid request body: {text}."


def _wish(message: str) -> str:
    """Pydantic's message without its preamble and without the names of our classes."""
    return message.removeprefix("Input ").partition(" or instance of ")[0]
