"""Limits of a connection: the time for sending a request and for reading the answer, and the length of a head.

Adds deadlines to uvicorn's HTTP/1.1 protocol, whose own timer only runs on idle connections. A connection that sends
its headers or body too slowly, or does not read its answer, is closed. No client can occupy the event loop, however
small the chunks of its body are. Input that is not HTTP is refused in OpenAI's shape. `admission` limits the number of
connections. This module does not know the application.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import h11
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from antiphon.errors import AntiphonError, InvalidRequest, RequestTimeout, TooManyConnections
from antiphon.http.edge.authentication import OPEN_PATHS
from antiphon.http.edge.connection_admission import ConnectionAdmission, ConnectionLimits, Entrance, Evictable, Wait
from antiphon.http.edge.direct_chunks import DirectChunks
from antiphon.http.edge.security_headers import SECURITY_HEADERS
from antiphon.http.errors import connection_error_body

MAX_HEAD_BYTES = 16 << 10  # request line and headers
_MAX_PIPELINED_BYTES = 64 << 10  # sent after a request that is still being answered
_READ_BYTES = 8 << 10  # at a time
_GRACE_SECONDS = 5.0  # for sending a refusal before the connection is closed
_HEAD_IS_LONG = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
_CLOSE = {"Connection": "close", **SECURITY_HEADERS}
_JSON = "application/json"


class LimitedProtocol(H11Protocol, Evictable):
    """One connection."""

    def __init__(
        self,
        limits: ConnectionLimits,
        admission: ConnectionAdmission,
        entrance: Entrance | None = None,
        **uvicorns: Any,  # noqa: ANN401  # handed on as they come
    ) -> None:
        """`entrance`: the connection's admission; None if it has not been counted yet."""
        super().__init__(**uvicorns)
        self._limits = limits
        self._admission = admission
        self._entrance = entrance
        self._unread = b""  # bytes that came and were not looked at yet
        self._wait: Wait | None = Wait.HEAD  # what `admission` knows
        self.app = DirectChunks(_ShortHeads(self.app))
        self._awaited: object = None  # h11.IDLE: a head; h11.SEND_BODY: a body; None: nothing
        self._sender: asyncio.TimerHandle | None = None  # ends a wait for either
        self._reader: asyncio.TimerHandle | None = None  # ends a wait for the reader

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's narrowing
        super().connection_made(transport)
        if self._entrance is None:
            self._entrance = self._admission.enter(self)
        if self._entrance is Entrance.NONE:
            transport.abort()
            return
        if self._entrance is Entrance.SPARE:
            self.app = _Crowded(self.app)
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        is_busy = bool(self._unread)
        self._unread += data
        if not is_busy:
            self._read_on()
        elif not self.transport.is_closing():
            self.transport.pause_reading()  # uvicorn has resumed it

    def _read_on(self) -> None:
        """Parse a little of the received data, and the rest after other connections had their turn.

        h11 also limits the length of a head only while it is incomplete.
        """
        data, self._unread = self._unread[:_READ_BYTES], self._unread[_READ_BYTES:]
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._set_deadline()
        self._note_wait()
        if self.transport.is_closing():
            return
        if self._unread:
            self.transport.pause_reading()
            self.loop.call_soon(self._read_on)
        elif not self.flow.read_paused:
            self.transport.resume_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._note_wait()

    def handle_events(self) -> None:
        """Continue to read after a request that is being answered, where uvicorn stops: otherwise a client that
        disconnects would not be noticed.

        The data is kept in memory until its turn, so a client that sends too much of it is disconnected.
        """
        super().handle_events()
        if self.flow.read_paused and self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            if len(self.conn.trailing_data[0]) > _MAX_PIPELINED_BYTES:
                self.transport.abort()
            else:
                self.flow.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unread = b""
        self._admission.leave(self)
        for timer in (self._sender, self._reader):
            if timer is not None:
                timer.cancel()

    def evict(self) -> None:
        """Close the connection to make room for another one."""
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader = self.loop.call_later(self._limits.timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reader is not None:
            self._reader.cancel()

    def send_400_response(self, msg: str) -> None:
        """Refuse data that is not HTTP, or a head that is too long."""
        if len(self.conn.trailing_data[0]) > MAX_HEAD_BYTES:
            self._refuse(_head_is_long(), _HEAD_IS_LONG)
        else:
            self._refuse(InvalidRequest("This is not a valid HTTP/1.1 request."), HTTPStatus.BAD_REQUEST)

    def _note_wait(self) -> None:
        """Report what the connection waits for if that has changed. More bytes of the same part do not count as new."""
        wait = _WAITS.get(self.conn.their_state)
        if wait is not self._wait:
            self._wait = wait
            self._admission.waits(self, wait)

    def _set_deadline(self) -> None:
        """A deadline for each head and each body, counted from its beginning. Sending more bytes does not extend it."""
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
            # If the application reads the body, `BodyDeadline` refuses it first. This is for an unread body.
            self._sender = self.loop.call_later(self._limits.timeout + _GRACE_SECONDS, self.transport.abort)

    def _head_is_late(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:
            self._refuse(RequestTimeout("headers", self._limits.timeout), HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.transport.close()

    def _refuse(self, error: AntiphonError, status: HTTPStatus) -> None:
        """Send an error instead of the application's answer, and close the connection."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # an answer is on its way already
            self.transport.abort()
            return
        body = connection_error_body(error)
        headers = {"content-type": _JSON, "content-length": str(len(body)), "connection": "close", **SECURITY_HEADERS}
        response = h11.Response(status_code=status, headers=[*headers.items()], reason=status.phrase)
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class BodyDeadline:
    """Middleware that raises RequestTimeout in the reader of a body that does not arrive in time."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        deadline = asyncio.get_running_loop().time() + self._seconds
        is_complete = is_late = False

        async def receive_in_time() -> Message:
            nonlocal is_complete, is_late
            if is_complete:
                return await receive()  # this waits for the client to disconnect, which may take long
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


_WAITS: dict[object, Wait] = {h11.IDLE: Wait.HEAD, h11.SEND_BODY: Wait.BODY}


class _ShortHeads:
    """Middleware that refuses a complete head that is too long."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = len(scope["method"]) + len(scope["raw_path"]) + len(scope["query_string"])
        size += sum(len(name) + len(value) + 4 for name, value in scope["headers"])  # a colon, a space, CR, LF
        if size <= MAX_HEAD_BYTES:
            await self._app(scope, receive, send)
        else:
            response = Response(connection_error_body(_head_is_long()), _HEAD_IS_LONG, _CLOSE, _JSON)
            await response(scope, receive, send)


class _Crowded:
    """The application for connections above the limit."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        error = TooManyConnections()
        headers = {"Retry-After": str(error.retry_after), **_CLOSE}
        response = Response(connection_error_body(error), error.http_status, headers, _JSON)
        await response(scope, receive, send)


def _head_is_long() -> InvalidRequest:
    return InvalidRequest(f"The request line and headers are longer than {MAX_HEAD_BYTES} bytes.")
