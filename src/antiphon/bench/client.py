"""An HTTP client that costs little: asyncio's transports, and h11 to read and write HTTP/1.1.

At 10,000 parts of streams a second it takes 0.6 cores, where httpx2 takes all of one and falls behind
(docs/decisions/019-the-client-of-load-tests.md). It keeps connections open between requests, as other clients do, and
notes when each part of a body came. It follows no redirects, uses no proxies and asks for no compression, so that
nothing but the server is measured. It knows HTTP alone; what a body means is read elsewhere (`answers.py`).
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import h11

from antiphon import __version__
from antiphon.bench.connection import CONNECT_SECONDS, Connection, NoConnection, Receiver, reason_of

_READ_SIZE = 1 << 16  # bytes, at most, that are read at once
_TEXT = re.compile(rb'"(?:content|reasoning_content|text|response)":\s?"[^"]')


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
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
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

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                name = self._host if self._tls else None
                _, connection = await loop.create_connection(
                    lambda: Connection(self._buffer, self._forget),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=name,
                )
        except (OSError, TimeoutError) as error:
            raise NoConnection(reason_of(error)) from None
        self._open.add(connection)
        return connection

    async def _exchange(self, connection: Connection, request: h11.Request, body: bytes, receiver: Receiver) -> None:
        try:
            await connection.exchange(request, body, receiver)
        except BaseException:
            connection.abort()
            raise
        if self._keep_alive and connection.make_ready():
            self._idle.append(connection)
        else:
            connection.abort()

    def _forget(self, connection: Connection) -> None:
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
