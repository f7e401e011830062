"""The only place where a request's body is read.

It promises that a body is cut off at its cap whether or not a length was announced, and that each refusal says what was
wrong. It must not know what a body means.
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

# A refused sender that is still sending would lose the answer to a connection reset: read on a little first.
_LINGER_BYTES = 16 << 20
_LINGER_SECONDS = 2.0


class ClientGone(InvalidRequest):
    """The client left before its request was complete. Nobody reads the answer; the metrics count the refusal."""

    http_status = 499  # nginx's word for it
    code = "client_gone"


async def read_body(request: Request, max_bytes: int, *, any_media_type: bool = False) -> bytes:
    """The request's body. `any_media_type`: whatever it is announced as, or not at all.

    Raises:
        UnsupportedMediaType: the body is not announced as JSON, or is compressed.
        RequestTooLarge: the body is over `max_bytes`.
        ClientGone: the connection closed first.
    """
    _check_media_type(request, any_media_type=any_media_type)
    try:
        return await _read_body(request, max_bytes)
    except ClientDisconnect:
        raise ClientGone("The connection closed before the request body was complete.") from None


async def read_nothing(request: Request) -> None:
    """Make sure that a request which says everything in its query has no body."""
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
