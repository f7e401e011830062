"""Reads request bodies. No other module does.

The size limit applies whether or not the request has a Content-Length, and each refusal says what is wrong. This module
does not interpret bodies.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.requests import ClientDisconnect

from antiphon.errors import (
    InvalidRequest,
    RequestTooLarge,
    UnsupportedMediaType,
)

# If a refused client is still sending, closing at once would reset the connection before it reads the answer, so a
# little more is read first.
_LINGER_BYTES = 16 << 20
_LINGER_SECONDS = 2.0


class ClientGone(InvalidRequest):
    """The client disconnected before its request was complete. It gets no answer; the metrics count the refusal."""

    http_status = 499  # as in nginx
    code = "client_gone"


async def read_body(request: Request, max_bytes: int, *, any_media_type: bool = False) -> bytes:
    """Read the request's body. With `any_media_type`, any Content-Type is accepted, or none.

    Raises:
        UnsupportedMediaType: the Content-Type is not JSON, or the body is compressed.
        RequestTooLarge: the body is larger than `max_bytes`.
        ClientGone: the connection was closed first.
    """
    _check_media_type(request, any_media_type=any_media_type)
    try:
        return await _read_body(request, max_bytes)
    except ClientDisconnect:
        raise ClientGone("The connection closed before the request body was complete.") from None


async def read_nothing(request: Request) -> None:
    """Raise InvalidRequest if a request with fields in its query also has a body."""
    try:
        body = await _read_body(request, 0)
    except (RequestTooLarge, ClientDisconnect):
        body = b"something"
    if body:
        raise InvalidRequest("Send the fields in the query or as a JSON body, not in both.")


def _check_media_type(request: Request, *, any_media_type: bool) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not any_media_type:
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
    raise RequestTooLarge(f"The request body is larger than {max_bytes} bytes, the maximum of this server.")


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
