"""Writes the chunks of a streamed answer to the connection without h11's state machine.

uvicorn makes an event of each chunk, and h11 checks it against the state of the connection. Once the head of a chunked
response was sent, nothing is left to decide until its last chunk: a chunk is its length in hexadecimal, a line break,
the bytes and another line break (RFC 9112, section 7.1). A server with many streams sends tens of thousands of them a
second. The head, the last chunk and everything that is not chunked still go through h11, whose state does not change
with a chunk.
"""

from __future__ import annotations

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import RequestResponseCycle

_WITHOUT_BODY = (204, 304)
_FRAMING = (b"content-length", b"transfer-encoding")


class DirectChunks:
    """The outermost middleware, called by uvicorn itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        cycle = getattr(send, "__self__", None)
        if not isinstance(cycle, RequestResponseCycle) or scope["http_version"] != "1.1" or scope["method"] == "HEAD":
            await self._app(scope, receive, send)
            return
        is_chunked = False

        async def send_directly(message: Message) -> None:
            nonlocal is_chunked
            if is_chunked and message.get("more_body") and message["body"] and _is_open(cycle):
                body = message["body"]
                cycle.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
                return
            if message["type"] == "http.response.start":
                is_chunked = _is_chunked(message)
            await send(message)

        await self._app(scope, receive, send_directly)


def _is_open(cycle: RequestResponseCycle) -> bool:
    """Whether a chunk can be written now: the head was sent, the end was not, and the client reads what it gets."""
    return cycle.conn.our_state is h11.SEND_BODY and not cycle.flow.write_paused and not cycle.disconnected


def _is_chunked(start: Message) -> bool:
    """Whether h11 sends the body of a response to a GET or POST of HTTP/1.1 in chunks."""
    if start["status"] in _WITHOUT_BODY:
        return False
    return not any(name.lower() in _FRAMING for name, _ in start.get("headers", ()))
