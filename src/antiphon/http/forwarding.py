"""Passes a request for a stored response on to the server that stores it, and the answer back.

A response's id names the server process that stores it, and a server knows by the reports of its peers which of them
that is. So a client may ask any server, and a conversation is continued where its prefix is cached. A request is passed
on at most once. It keeps its client's key, its id and its deadlines; an admin key tells the other server that it comes
from a peer. If that server cannot be reached, the client gets a 503; if it ends while it streams, an error event.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import httpx2
import msgspec
from fastapi import Request, Response

from antiphon.api.events import MEDIA_TYPE
from antiphon.api.responses.background import Follower
from antiphon.errors import AntiphonError, PeerUnavailable
from antiphon.http.context import account_of, context_of, read_json_object
from antiphon.http.early_refusal import refuse_early
from antiphon.http.edge.authentication import PEER_KEY_HEADER, is_from_peer
from antiphon.http.sse import EventStream, until_disconnect

_CONNECT_SECONDS = 3.0
# A server that answers takes any time for a whole answer, so only a connection that breaks ends the wait.
_TIMEOUT = httpx2.Timeout(None, connect=_CONNECT_SECONDS)
_END_OF_EVENT = b"\n\n"
_GONE = 499  # nginx's status for a client that disconnected before the response

# Headers of one connection (RFC 9110, section 7.6.1), of the body, which is encoded again, and of a browser's page,
# which this server has checked.
_NOT_PASSED_ON = frozenset(
    (
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"),
        *("content-length", "content-type", "accept-encoding", "cookie", "origin", "referer"),
        *("x-request-id", "x-forwarded-for", PEER_KEY_HEADER.decode()),
    )
)
# The other ones of a response are set here as for any response.
_PASSED_BACK = frozenset(("retry-after", "retry-after-ms", "x-should-retry", "x-ignored-fields", "www-authenticate"))
_OURS = "x-antiphon-"


async def continued_elsewhere(request: Request, endpoint: str) -> tuple[Response | None, dict[str, Any] | None]:
    """The answer to a request that continues a response of another server, else None and the request's fields.

    Without peers nothing is read, and the fields are None. `endpoint` counts a request whose body is refused.
    """
    context = context_of(request)
    if not context.settings.peers:
        return None, None
    try:
        context.check_load()
        check = partial(refuse_early, request, may_be_detached=True)
        fields = await read_json_object(request, before_decoding=check)
    except AntiphonError:
        with account_of(request, endpoint):
            raise
    return await forwarded(request, fields.get("previous_response_id"), fields), fields


async def forwarded(request: Request, response_id: object, fields: dict[str, Any] | None = None) -> Response | None:
    """The answer of the peer that stores a response, or None if none does. `fields` is the request's body.

    Raises:
        PeerUnavailable: the peer cannot be reached, or ended before its answer began.
    """
    context = context_of(request)
    if not isinstance(response_id, str) or is_from_peer(request.scope):
        return None
    peer = context.peers.holder_of(response_id)
    if peer is None:
        return None
    content = None if fields is None else msgspec.json.encode(fields)
    answered: Response | None = None
    async with AsyncExitStack() as stack:
        answered = await until_disconnect(request.receive, _ask(stack, peer, request, content))
    return answered or Response(status_code=_GONE)


async def _ask(stack: AsyncExitStack, peer: str, request: Request, content: bytes | None) -> Response:
    """The peer's answer. A stream takes over what closes the connection."""
    try:
        # A client for each request: there is nothing to close when the settings change.
        client = httpx2.AsyncClient(verify=_tls(), timeout=_TIMEOUT, trust_env=False)
        await stack.enter_async_context(client)
        url = httpx2.URL(f"{peer}{request.url.path}?{request.url.query}".rstrip("?"))
        sent = client.build_request(request.method, url, headers=_headers(request, content), content=content)
        reply = await client.send(sent, stream=True)
        stack.push_async_callback(reply.aclose)
        if not reply.headers.get("content-type", "").startswith(MEDIA_TYPE):
            response = Response(await reply.aread(), reply.status_code, media_type=reply.headers.get("content-type"))
            return _with_headers(response, reply)
    except httpx2.HTTPError:
        raise PeerUnavailable from None
    return _with_headers(EventStream(_events(reply), Follower(), stack.pop_all()), reply)


async def _events(reply: httpx2.Response) -> AsyncIterator[bytes]:
    """The stream in whole events, so that an error event can follow. Raises PeerUnavailable if it is cut."""
    rest = b""
    try:
        async for chunk in reply.aiter_raw():
            whole, end, rest = (rest + chunk).rpartition(_END_OF_EVENT)
            if end:
                yield whole + end
    except httpx2.HTTPError:
        raise PeerUnavailable from None
    if rest:
        raise PeerUnavailable


def _headers(request: Request, content: bytes | None) -> dict[str, str]:
    """The request's headers for the peer."""
    state, client = request.scope.get("state", {}), request.scope.get("client")
    headers = {
        name: value
        for name, value in request.headers.items()
        if name not in _NOT_PASSED_ON and not name.startswith("sec-")
    }
    headers["x-request-id"] = state["request_id"]
    headers["x-forwarded-for"] = client[0] if client else ""
    headers["accept-encoding"] = "identity"
    headers[PEER_KEY_HEADER.decode()] = context_of(request).settings.peer_key
    if content is not None:
        headers["content-type"] = "application/json"
    return headers


def _with_headers(response: Response, reply: httpx2.Response) -> Response:
    for name, value in reply.headers.items():
        if name in _PASSED_BACK or name.startswith(_OURS):
            response.headers[name] = value
    return response


@functools.cache
def _tls() -> ssl.SSLContext:
    """One for all requests, as making one takes some 20 ms."""
    return ssl.create_default_context()
