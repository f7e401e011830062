"""Connections under limits: how many, how long a sender may take to send and a reader to read.

Owns the deadlines, on top of uvicorn's HTTP/1.1 protocol, whose own timer runs on idle connections alone. It promises
that no connection lasts that neither sends, nor reads, nor is being answered: not one that sends headers or a body byte
by byte, nor one that leaves a stream unread; that the cap on connections leaves room for those who ask whether the
server lives; and that whatever is not HTTP is told so in OpenAI's shape. It must not know what is asked.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from antiphon.errors import AntiphonError, InvalidRequest, RequestTimeout, TooManyConnections
from antiphon.http.edge.authentication import OPEN_PATHS
from antiphon.http.errors import connection_error_body

MAX_HEAD_BYTES = 16 << 10  # request line and headers
_MAX_PIPELINED_BYTES = 64 << 10  # sent after a request that is still being answered
_SPARE_CONNECTIONS = 64  # beyond the cap, so that they can be told; even more are closed at once
_GRACE_SECONDS = 5.0  # for a refusal to go out before the connection goes


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one server grants."""

    max_connections: int
    timeout: float  # seconds for a head, for a body, and for a reader to take what waits for it


class LimitedProtocol(H11Protocol):
    """One connection."""

    def __init__(self, limits: ConnectionLimits, **uvicorns: Any) -> None:  # noqa: ANN401  # handed on as they come
        super().__init__(**uvicorns)
        self._limits = limits
        self._awaited: object = None  # h11.IDLE: a head; h11.SEND_BODY: a body; None: nothing
        self._sender: asyncio.TimerHandle | None = None  # ends a wait for either
        self._reader: asyncio.TimerHandle | None = None  # ends a wait for the reader

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's narrowing
        super().connection_made(transport)
        excess = len(self.connections) - self._limits.max_connections
        if excess > _SPARE_CONNECTIONS:
            transport.abort()
            return
        if excess > 0:
            self.app = _Crowded(self.app)
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        # In small parts: h11 measures a head only while it is incomplete.
        for start in range(0, len(data), MAX_HEAD_BYTES):
            if not self.transport.is_closing():
                super().data_received(data[start : start + MAX_HEAD_BYTES])
        self._set_deadline()

    def handle_events(self) -> None:
        """Read on where uvicorn stops, at data after a request that is being answered: only who reads sees a client go.

        What was read waits its turn in memory, so a client that sends too much of it is disconnected.
        """
        super().handle_events()
        if self.flow.read_paused and self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            if len(self.conn.trailing_data[0]) > _MAX_PIPELINED_BYTES:
                self.transport.abort()
            else:
                self.flow.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._sender, self._reader):
            if timer is not None:
                timer.cancel()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader = self.loop.call_later(self._limits.timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reader is not None:
            self._reader.cancel()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP, or too much of it."""
        if len(self.conn.trailing_data[0]) > MAX_HEAD_BYTES:
            error = InvalidRequest(f"The request line and headers are longer than {MAX_HEAD_BYTES} bytes.")
            self._refuse(error, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            self._refuse(InvalidRequest("This is not a valid HTTP/1.1 request."), HTTPStatus.BAD_REQUEST)

    def _set_deadline(self) -> None:
        """One for each head and each body, counted from its beginning: more bytes buy no more time."""
        state = self.conn.their_state
        awaited = state if state in (h11.IDLE, h11.SEND_BODY) else None
        if awaited is self._awaited:
            return
        self._awaited = awaited
        if self._sender is not None:
            self._sender.cancel()
        if awaited is h11.IDLE:
            self._sender = self.loop.call_later(self._limits.timeout, self._head_is_late)
        elif awaited is h11.SEND_BODY:
            # Whoever reads the body gives up first, and says so (`BodyDeadline`). This is for a body nobody reads.
            self._sender = self.loop.call_later(self._limits.timeout + _GRACE_SECONDS, self.transport.abort)

    def _head_is_late(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:
            self._refuse(RequestTimeout("headers", self._limits.timeout), HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.transport.close()

    def _refuse(self, error: AntiphonError, status: HTTPStatus) -> None:
        """Answer in place of the application, and close."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # an answer is on its way already
            self.transport.abort()
            return
        body = connection_error_body(error)
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        response = h11.Response(status_code=status, headers=headers, reason=status.phrase)
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class BodyDeadline:
    """Has whoever reads a request's body fail with RequestTimeout when it does not come in time."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        deadline = asyncio.get_running_loop().time() + self._seconds
        is_complete = is_late = False

        async def receive_in_time() -> Message:
            nonlocal is_complete, is_late
            if is_complete:
                return await receive()  # which waits for the client to leave, and that may take long
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                is_late = True
                raise RequestTimeout("body", self._seconds) from None
            is_complete = not message.get("more_body", False)
            return message

        async def send_and_close(message: Message) -> None:
            if is_late and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive_in_time, send_and_close)


class _Crowded:
    """What a connection beyond the cap gets."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        error = TooManyConnections()
        headers = {"Retry-After": str(error.retry_after), "Connection": "close"}
        response = Response(connection_error_body(error), error.http_status, headers, media_type="application/json")
        await response(scope, receive, send)
