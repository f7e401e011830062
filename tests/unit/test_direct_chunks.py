"""A streamed answer is the same on the wire with and without h11's state machine between its chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import h11
import pytest
import uvicorn
from uvicorn.server import ServerState

from antiphon.http.edge import connections
from antiphon.http.edge.connection_admission import ConnectionAdmission, ConnectionLimits
from antiphon.http.edge.connections import LimitedProtocol

PARTS = [b"data: 1\n\n", b"x" * 300, b"", b"\r\n", bytes(range(256))] * 20
App = Callable[[Any, Any, Any], Awaitable[None]]


def streaming(status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> App:
    """An application that streams `PARTS`."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for part in PARTS:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"end", "more_body": False})

    return app


async def exchange(app: App, request: bytes) -> bytes:
    """All that a server sends for these bytes until it closes the connection."""
    config = uvicorn.Config(app, lifespan="off", log_config=None, server_header=False, date_header=False)
    config.load()
    limits, admission = ConnectionLimits(4, 20.0), ConnectionAdmission(4)

    def connect() -> LimitedProtocol:
        return LimitedProtocol(limits, admission, config=config, server_state=ServerState(), app_state={})

    server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(request)
        received = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        await writer.wait_closed()
    return received


REQUESTS = {
    "chunked": (streaming(), b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    "old client": (streaming(), b"GET / HTTP/1.0\r\nHost: x\r\n\r\n"),
    "head": (streaming(), b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    "length": (
        streaming(headers=((b"Content-Length", b"%d" % (len(b"".join(PARTS)) + 3)),)),
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ),
    "two in one packet": (
        streaming(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_the_bytes_are_those_of_h11(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    direct = await exchange(*REQUESTS[name])
    monkeypatch.setattr(connections, "DirectChunks", lambda app: app)
    assert direct == await exchange(*REQUESTS[name])
    if name not in ("head", "old client"):
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(direct)
        body = bytearray()
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            body += event.data if isinstance(event, h11.Data) else b""
        assert bytes(body) == b"".join(PARTS) + b"end"


async def test_a_chunk_in_the_middle_of_an_answer_is_no_event_of_h11(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[type] = []
    send = h11.Connection.send
    monkeypatch.setattr(h11.Connection, "send", lambda self, event: sent.append(type(event)) or send(self, event))
    await exchange(*REQUESTS["chunked"])
    assert sent.count(h11.Data) == PARTS.count(b"") + 1
    assert sent.count(h11.EndOfMessage) == 1


async def test_chunks_wait_for_a_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without that, an answer to a client that stopped reading would be collected in memory."""
    paused = asyncio.Event()
    pause = LimitedProtocol.pause_writing
    monkeypatch.setattr(LimitedProtocol, "pause_writing", lambda self: (pause(self), paused.set())[0])
    num_sent = 0

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        nonlocal num_sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * (1 << 16), "more_body": True})
            num_sent += 1

    config = uvicorn.Config(endless, lifespan="off", log_config=None)
    config.load()
    protocol: list[LimitedProtocol] = []

    def connect() -> LimitedProtocol:
        limits, admission = ConnectionLimits(4, 20.0), ConnectionAdmission(4)
        protocol.append(LimitedProtocol(limits, admission, config=config, server_state=ServerState(), app_state={}))
        return protocol[0]

    server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=1)
        writer.write(REQUESTS["chunked"][1])
        await asyncio.wait_for(paused.wait(), 20)
        before = num_sent
        for _ in range(20):
            await asyncio.sleep(0)
        assert num_sent <= before + 1
        protocol[0].transport.abort()
        for task in list(protocol[0].tasks):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        writer.close()
        del reader
