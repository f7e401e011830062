"""An HTTP client that costs little: asyncio's transports, and h11 to read and write HTTP/1.1.

At 10,000 parts of streams a second it takes 0.6 cores, where httpx2 takes all of one and falls behind
(docs/decisions/019-the-client-of-load-tests.md). It keeps connections open between requests, as other clients do, and
notes when each part of a body came. It follows no redirects, uses no proxies and asks for no compression, so that
nothing but the server is measured. It knows HTTP alone; what a body means is read elsewhere (`answers.py`).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import urlsplit

import h11

from antiphon import __version__

_CONNECT_SECONDS = 10.0
_MAX_HEAD = 1 << 16  # bytes of a response's head
_READ_SIZE = 1 << 16  # bytes, at most, that are read at once
_TEXT = re.compile(rb'"(?:content|reasoning_content|text|response)":\s?"[^"]')
_CLOSE = (b"connection", b"close")


class NoConnection(ConnectionError):
    """The server could not be reached, or it closed the connection before it had answered."""


class CutOff(EOFError):
    """The connection ended before the answer did."""


class BadResponse(ValueError):
    """What came is not HTTP."""


class Receiver(Protocol):
    """Takes one response as it comes. Times are those of `time.monotonic`."""

    def on_head(self, status: int, headers: dict[str, str], at: float) -> None:
        """The status and the headers, with names in lower case."""

    def on_data(self, data: bytes, at: float) -> None:
        """A part of the body, without HTTP's chunks around it."""


@dataclass
class Reply:
    """A whole response, kept as it came. It is a Receiver."""

    sent: float = 0.0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[tuple[float, bytes]] = field(default_factory=list)  # of the body, each with its time

    def on_head(self, status: int, headers: dict[str, str], at: float) -> None:
        """Keep the head."""
        self.status, self.headers = status, headers

    def on_data(self, data: bytes, at: float) -> None:
        """Keep a part of the body."""
        self.parts.append((at, data))

    @property
    def body(self) -> bytes:
        """All of the body so far."""
        return b"".join(part for _, part in self.parts)

    @property
    def ended(self) -> float:
        """When the last part of the body came."""
        return self.parts[-1][0] if self.parts else self.sent

    @property
    def first_text(self) -> float | None:
        """When the first part with text of a thought or an answer came; None if none did."""
        return next((at for at, part in self.parts if has_text(part)), None)

    def json(self) -> Any:  # noqa: ANN401  # JSON
        """The body as JSON. Raises ValueError if it is not."""
        return json.loads(self.body)

    def events(self) -> Iterator[Any]:
        """The payloads of a stream of server-sent events, without the closing [DONE]."""
        for line in self.body.split(b"\n"):
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])

    @property
    def is_done(self) -> bool:
        """Whether a stream of OpenAI's ends with [DONE]."""
        return self.body.rstrip().endswith(b"data: [DONE]")


def has_text(part: bytes) -> bool:
    """Whether a part of a stream has text, of a thought or after it, that is not empty."""
    return _TEXT.search(part) is not None


class Client:
    """All connections to one server. Use it as a context manager, within one event loop."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        keep_alive: bool = True,
    ) -> None:
        """`url`: `http://host:port`, perhaps with a path before those that are asked for; `tls`: None for the
        system's certificates.
        """
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        is_tls = parts.scheme == "https"
        self._port = parts.port or (443 if is_tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._tls = (tls or ssl.create_default_context()) if is_tls else None
        name = parts.netloc.rpartition("@")[2]
        self._headers = [("Host", name), ("User-Agent", f"antiphon-bench/{__version__}"), ("Accept", "*/*")]
        self._headers += list((headers or {}).items())
        self._keep_alive = keep_alive
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._buffer = bytearray(_READ_SIZE)  # shared: what was read is taken out before the next read

    async def send(
        self,
        method: str,
        path: str,
        receiver: Receiver,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send one request and hand its response to `receiver` until it is complete.

        A cancelled call closes the connection. A kept connection that the server closed in the meantime is replaced,
        once, if nothing of a response had come.

        Raises:
            NoConnection: there is no connection, or it ended before the status came.
            CutOff: the connection ended in the body.
            BadResponse: the response is not HTTP.
        """
        request = self._request(method, path, body, headers or {})
        if self._idle:
            connection = self._idle.pop()
            try:
                return await self._exchange(connection, request, body, receiver)
            except NoConnection:
                pass  # it was closed while it was idle
        connection = await self._connect()
        await self._exchange(connection, request, body, receiver)

    async def ask(
        self,
        path: str,
        body: Mapping[str, Any] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "",
    ) -> Reply:
        """The whole response to one request; a response with any status is returned. Raises as `send` does."""
        encoded = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        reply = Reply(time.monotonic())
        await self.send(method or ("GET" if body is None else "POST"), path, reply, encoded, headers)
        return reply

    def _request(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> h11.Request:
        fields = [*self._headers, *headers.items()]
        if body:
            fields.append(("Content-Type", "application/json"))
        if body or method == "POST":
            fields.append(("Content-Length", str(len(body))))
        if not self._keep_alive:
            fields.append(("Connection", "close"))
        return h11.Request(method=method, target=self._prefix + path, headers=fields)

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                name = self._host if self._tls else None
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._buffer, self._forget),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=name,
                )
        except (OSError, TimeoutError) as error:
            raise NoConnection(_reason(error)) from None
        self._open.add(connection)
        return connection

    async def _exchange(self, connection: _Connection, request: h11.Request, body: bytes, receiver: Receiver) -> None:
        try:
            await connection.exchange(request, body, receiver)
        except BaseException:
            connection.abort()
            raise
        if self._keep_alive and connection.make_ready():
            self._idle.append(connection)
        else:
            connection.abort()

    def _forget(self, connection: _Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close all connections; requests under way fail."""
        for connection in list(self._open):
            connection.abort()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def ask(
    url: str,
    path: str,
    body: Mapping[str, Any] | bytes | None = None,
    headers: Mapping[str, str] | None = None,
    method: str = "",
) -> Reply:
    """One request on a connection of its own, and its whole response. Raises as `Client.send` does."""
    with Client(url, keep_alive=False) as client:
        return await client.ask(path, body, headers, method)


class _Connection(asyncio.BufferedProtocol):
    """One connection, which does one exchange at a time.

    It reads into the buffer of its client: otherwise asyncio allocates 256 KiB for each read, which costs more than
    the reading.
    """

    def __init__(self, buffer: bytearray, forget: Callable[[_Connection], None]) -> None:
        self._buffer = buffer
        self._forget = forget
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self._receiver: Receiver | None = None
        self._began = False  # a head has come for this exchange
        self._is_at_end = False  # the server will send nothing more

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    async def exchange(self, request: h11.Request, body: bytes, receiver: Receiver) -> None:
        if self._transport is None or self._transport.is_closing():
            raise NoConnection("the server closed the connection")
        self._done = asyncio.get_running_loop().create_future()
        self._receiver, self._began = receiver, False
        content = [self._http.send(request), self._http.send(h11.Data(data=body)) if body else b""]
        self._transport.write(b"".join(part or b"" for part in content) + (self._http.send(h11.EndOfMessage()) or b""))
        await self._done

    def make_ready(self) -> bool:
        """Whether the connection can be used again; it is ready for the next exchange then."""
        self._receiver = None
        if self._transport is None or self._transport.is_closing():
            return False
        if (self._http.our_state, self._http.their_state) != (h11.DONE, h11.DONE) or self._is_at_end:
            return False
        if self._http.trailing_data[0]:  # more than was asked for
            return False
        self._http.start_next_cycle()
        return True

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, num_bytes: int) -> None:
        at = time.monotonic()
        if self._receiver is None:  # nothing was asked for
            self.abort()
            return
        self._http.receive_data(bytes(memoryview(self._buffer)[:num_bytes]))
        self._read(at)

    def eof_received(self) -> None:
        self._is_at_end = True
        if self._receiver is not None:
            self._http.receive_data(b"")
            self._read(time.monotonic())

    def connection_lost(self, error: Exception | None) -> None:
        self._forget(self)
        self._end(self._lost(_reason(error)))

    def _lost(self, reason: str) -> Exception:
        return CutOff(f"the connection ended in the answer: {reason}") if self._began else NoConnection(reason)

    def _read(self, at: float) -> None:
        receiver = self._receiver
        assert receiver is not None
        next_event = self._http.next_event
        try:
            while (event := next_event()) is not h11.NEED_DATA and event is not h11.PAUSED:
                if type(event) is h11.Data:
                    receiver.on_data(bytes(event.data), at)
                elif type(event) is h11.Response:
                    self._began = True
                    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
                    receiver.on_head(event.status_code, headers, at)
                elif type(event) is h11.EndOfMessage:
                    self._end(None)
                    return
                elif type(event) is h11.ConnectionClosed:
                    self._end(self._lost("the server closed it"))
                    return
        except h11.RemoteProtocolError as error:
            self._end(self._lost("the server closed it") if self._is_at_end else _bad(error))
        except Exception as error:  # the receiver's own, which must not be lost in a callback
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._done is None or self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)

    def abort(self) -> None:
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()


def _bad(error: Exception) -> BadResponse:
    return BadResponse(f"the response is not HTTP: {error}")


def _reason(error: BaseException | None) -> str:
    if error is None:
        return "the server closed it"
    if isinstance(error, TimeoutError):
        return f"no connection within {_CONNECT_SECONDS:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
