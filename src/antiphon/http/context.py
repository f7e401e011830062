"""The serving context of an HTTP request, the JSON in its body, and the accounting of its generation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from fastapi import Request

from antiphon.api.context import Context
from antiphon.http.deadlines import deadlines_of
from antiphon.http.edge.addresses import network_of
from antiphon.http.edge.authentication import key_name
from antiphon.http.edge.body import read_body
from antiphon.http.edge.tracing import route_of, trace_of
from antiphon.metrics import RequestAccount
from antiphon.strict_json import MAX_JSON_VALUES, as_object, decode_json
from antiphon.tracing.attributes import IS_RETRY

_INLINE_BYTES = 32 << 10  # a shorter body is decoded on the event loop, which takes a few milliseconds at most


def context_of(request: Request) -> Context:
    """The serving context of the request's client. Raises InvalidRequest if a header is not valid."""
    context = request.app.state.context
    assert isinstance(context, Context)
    state = request.scope.setdefault("state", {})
    _, digest = _body(request)
    known: Context | None = state.get("context")
    if known is not None and known.deadlines.digest == digest:
        return known
    key, address = key_name(request.scope), network_of(request.scope)
    deadlines = deadlines_of(request.headers, key or address, context.settings.max_wait, digest)
    state["context"] = found = context.of_client(key, address, deadlines)
    return found


def with_body(context: Context, request: Request) -> Context:
    """A request's context once its body has been read, by which a retry is recognised."""
    _, digest = _body(request)
    return replace(context, deadlines=replace(context.deadlines, digest=digest))


def body_size(request: Request) -> int:
    """The number of bytes in the request's body, as far as it was read."""
    return _body(request)[0]


async def read_json(
    request: Request, *, any_media_type: bool = False, before_decoding: Callable[[], None] | None = None
) -> Any:  # noqa: ANN401
    """The request's body, one JSON value, which may contain more numbers than the context has tokens.

    With `any_media_type`, any Content-Type is accepted. `before_decoding` is called once the body has been read; it may
    raise.

    Raises:
        NotReady: the engine has not started yet; the body is not read.
        InvalidRequest: the body is not one strict JSON value within the limits of `decode_json`.
        AntiphonError: as for `read_body` and `Context.in_thread`.
    """
    context = context_of(request)
    most = max(MAX_JSON_VALUES, 2 * context.facts().context_length)
    body = await read_body(request, context.settings.max_body_bytes, any_media_type=any_media_type)
    request.scope.setdefault("state", {})["body"] = (len(body), blake2b(body, digest_size=16).digest())
    if (trace := trace_of(request.scope)) is not None:
        trace.received_at = time.monotonic()
    if before_decoding is not None:
        before_decoding()
    return await context.if_long(len(body) > _INLINE_BYTES, decode_json, body, max_values=most)


async def read_json_object(
    request: Request, *, any_media_type: bool = False, before_decoding: Callable[[], None] | None = None
) -> dict[str, Any]:
    """The request's body as a JSON object. Raises like `read_json`, and InvalidRequest for other values."""
    return as_object(await read_json(request, any_media_type=any_media_type, before_decoding=before_decoding))


def account_of(request: Request, endpoint: str) -> RequestAccount:
    """Open the account of a generation for `request`; the access log and the trace report its outcome."""
    context = context_of(request)
    account = context.metrics.request(endpoint, key_name(request.scope), is_retry=context.deadlines.is_retry)
    request.scope.setdefault("state", {}).setdefault("accounts", []).append(account)
    if (trace := trace_of(request.scope)) is not None:
        account.trace = trace.generation(f"{request.method} {route_of(request.scope)}", endpoint)
        if account.trace is not None and context.deadlines.is_retry:
            account.trace.set({IS_RETRY: True})
    return account


def _body(request: Request) -> tuple[int, bytes]:
    """The size of the body in bytes, and its digest; nothing before it was read."""
    size, digest = request.scope.get("state", {}).get("body", (0, b""))
    return size, digest
