"""The edge's caps, and the reading of a body under them: bytes in, one JSON object out.

Owns every cap on the size and shape of a request, and the only place where a body is read. It promises that a body is
cut off at its cap whether or not a length was announced, that JSON is strict (no NaN, no Infinity, no lone surrogate,
no second value after the first) and shallow, and that each refusal says what was wrong and where. It must not know what
a body means: that is for `schemas`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from fastapi import Request
from starlette.requests import ClientDisconnect

from antiphon.errors import InvalidRequest, RequestTooLarge, UnsupportedMediaType
from antiphon.http.json_faults import fault_of

MAX_JSON_DEPTH = 64  # objects and lists inside each other
MAX_CHOICES = 16  # `n`
MAX_PROMPTS = 64  # in one completions request
MAX_SEQUENCES = 64  # prompts times choices
MAX_STOPS = 16
MAX_STOP_LENGTH = 256  # characters of one stop string
MAX_STOP_TOKEN_IDS = 64
MAX_LOGIT_BIASES = 1024
MAX_LOGPROBS = 20
MAX_MESSAGES = 4096
MAX_GRAMMAR_CHOICES = 1024  # texts that an answer may be one of
MAX_TOOLS = 128  # OpenAI's
MAX_BATCH = 1024  # items of /generate-batch
MAX_METADATA = 16  # entries; OpenAI's

# A refused sender that is still sending would lose the answer to a connection reset: read on a little first.
_LINGER_BYTES = 16 << 20
_LINGER_SECONDS = 2.0

_decoder = msgspec.json.Decoder()


class ClientGone(InvalidRequest):
    """The client left before its request was complete. Nobody reads the answer; the metrics count the refusal."""

    http_status = 499  # nginx's word for it
    code = "client_gone"


async def read_json(request: Request, max_bytes: int) -> Any:  # noqa: ANN401
    """The request's body, one JSON value.

    Raises:
        UnsupportedMediaType: the body is not announced as JSON, or is compressed.
        RequestTooLarge: the body is over `max_bytes`.
        ClientGone: the connection closed first.
        InvalidRequest: the body is not one strict, shallow JSON value in UTF-8.
    """
    _check_media_type(request)
    try:
        body = await _read_body(request, max_bytes)
    except ClientDisconnect:
        raise ClientGone("The connection closed before the request body was complete.") from None
    return decode_json(body)


async def read_json_object(request: Request, max_bytes: int) -> dict[str, Any]:
    """The request's body as a JSON object. Raises as `read_json`, and InvalidRequest for any other value."""
    return _object(await read_json(request, max_bytes))


async def read_nothing(request: Request) -> None:
    """Make sure that a request which says everything in its query has no body."""
    try:
        body = await _read_body(request, 0)
    except (RequestTooLarge, ClientDisconnect):
        body = b"something"
    if body:
        raise InvalidRequest("Send the fields in the query or as a JSON body, not in both.")


def decode_json_object(body: bytes) -> dict[str, Any]:
    """One strict, shallow JSON object out of `body`, or InvalidRequest."""
    return _object(decode_json(body))


def decode_json(body: bytes) -> Any:  # noqa: ANN401
    """One strict, shallow JSON value out of `body`, or InvalidRequest."""
    try:
        value = _decoder.decode(body)
    except RecursionError:
        raise _too_deep() from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The request body is not valid UTF-8 (byte {error.start} of a string).") from None
    except msgspec.DecodeError as error:
        unparsed = InvalidRequest(f"We could not parse the request body as JSON: {error}.")
        raise fault_of(body) or unparsed from None
    # Only a body with this many brackets can be too deep; few have them, so few pay for the walk.
    if body.count(b"[") + body.count(b"{") > MAX_JSON_DEPTH:
        _check_depth(value)
    return value


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    return value


def _check_media_type(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        found = f"not {media_type!r}" if media_type else "but the request has none"
        raise UnsupportedMediaType(f"The Content-Type header must be application/json, {found}.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Compressed request bodies are not accepted; send the JSON as it is.")


async def _read_body(request: Request, max_bytes: int) -> bytes:
    announced = request.headers.get("content-length", "0")
    parts: list[bytes] = []
    size = 0
    chunks = request.stream()
    too_large = announced.isdecimal() and int(announced[:20]) > max_bytes
    while not too_large:
        chunk = await anext(chunks, b"")
        if not chunk:
            return b"".join(parts)
        parts.append(chunk)
        size += len(chunk)
        too_large = size > max_bytes
    await _linger(chunks)
    raise RequestTooLarge(f"The request body is larger than {max_bytes} bytes, the most this server takes.")


async def _linger(chunks: AsyncIterator[bytes]) -> None:
    discarded = 0
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            async for chunk in chunks:
                discarded += len(chunk)
                if discarded > _LINGER_BYTES:
                    return
    except TimeoutError:
        return


def _check_depth(value: object) -> None:
    """Walk level by level, so that depth costs no recursion of ours."""
    level: list[Any] = [value]
    for _ in range(MAX_JSON_DEPTH):
        inner: list[Any] = []
        for node in level:
            children = node.values() if isinstance(node, dict) else node
            inner.extend(child for child in children if isinstance(child, dict | list))
        if not inner:
            return
        level = inner
    raise _too_deep()


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"The request body is nested too deeply; the most is {MAX_JSON_DEPTH} levels.")
