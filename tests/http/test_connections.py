"""Slow senders, slow readers, too many at once, and what is no HTTP: on real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from http_server import Served, serving, until
from patience import PATIENCE

from antiphon.api_keys import read_api_keys
from antiphon.http.edge.connections import MAX_HEAD_BYTES

CHAT = "/v1/chat/completions"
_BODY = b'{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}'
_QUICK = 0.3  # seconds; a deadline that tests wait for
_NEVER = 1000.0


def head(path: str = CHAT, length: int = len(_BODY), method: str = "POST") -> bytes:
    lines = (
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {length}",
    )
    return "\r\n".join((*lines, "", "")).encode()


@asynccontextmanager
async def connection(server: Served) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = server.url.removeprefix("http://").split(":")
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield reader, writer
        finally:
            writer.close()


async def trickle(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send a byte at a time, each well within the deadline, until the other side has had enough."""
    try:
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(_QUICK / 10)
    except ConnectionError:
        pass


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of one answer."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(lines[0].split()[1]), headers, json.loads(body)


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Wait for the end of a connection; nothing else may come."""
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


async def test_headers_that_come_byte_by_byte_run_out_of_time(tmp_path):
    async with serving(tmp_path, network_timeout=_QUICK) as server, connection(server) as (reader, writer):
        sending = asyncio.create_task(trickle(writer, b"GET /health HTTP/1.1\r\n" + b"X-Slow: yes\r\n" * 1000))
        status, headers, body = await read_answer(reader)
        assert (status, headers["connection"]) == (408, "close")
        assert body["error"]["code"] == "request_timeout"
        assert "headers did not arrive within 0.3 seconds" in body["error"]["message"]
        assert await is_closed(reader)
        await sending


async def test_a_connection_that_says_nothing_is_closed_without_a_word(tmp_path):
    async with serving(tmp_path, network_timeout=_QUICK) as server, connection(server) as (reader, _):
        assert await is_closed(reader)


async def test_a_body_that_comes_byte_by_byte_runs_out_of_time(tmp_path):
    async with serving(tmp_path, network_timeout=_QUICK) as server:
        for path in (CHAT, "/v1/messages", "/generate-batch", "/tokenize"):
            async with connection(server) as (reader, writer):
                writer.write(head(path, 10_000))
                sending = asyncio.create_task(trickle(writer, b" " * 10_000))
                status, headers, body = await read_answer(reader)
                assert (status, headers["connection"]) == (408, "close")
                assert "body did not arrive within 0.3 seconds" in body["error"]["message"]
                assert await is_closed(reader)
                await sending
        refused = 'antiphon_requests_refused_total{code="request_timeout",endpoint="chat"}'
        assert (await server.metrics())[refused] == 1
        await server.check_accounts()


async def test_a_body_that_nobody_reads_runs_out_of_time_too(tmp_path, monkeypatch):
    monkeypatch.setattr("antiphon.http.edge.connections._GRACE_SECONDS", 0.1)
    keys = read_api_keys(["secret"])
    async with (
        serving(tmp_path, network_timeout=_QUICK, api_keys=keys) as server,
        connection(server) as (reader, writer),
    ):
        writer.write(head(length=10_000))
        sending = asyncio.create_task(trickle(writer, b" " * 10_000))
        assert (await read_answer(reader))[0] == 401
        assert await is_closed(reader)
        await sending


async def test_a_kept_connection_is_closed_when_it_is_idle(tmp_path):
    async with (
        serving(tmp_path, network_timeout=_NEVER, keep_alive_timeout=_QUICK) as server,
        connection(server) as (reader, writer),
    ):
        for _ in range(3):
            writer.write(head() + _BODY)
            assert (await read_answer(reader))[0] == 200
        assert await is_closed(reader)


async def test_a_second_request_has_a_deadline_of_its_own(tmp_path):
    async with (
        serving(tmp_path, network_timeout=_QUICK, keep_alive_timeout=_NEVER) as server,
        connection(server) as (reader, writer),
    ):
        writer.write(head() + _BODY)
        assert (await read_answer(reader))[0] == 200
        await asyncio.sleep(2 * _QUICK)  # idle is not slow
        writer.write(head() + _BODY)
        assert (await read_answer(reader))[0] == 200
        writer.write(b"POST")
        assert (await read_answer(reader))[0] == 408
        assert await is_closed(reader)


async def test_an_answer_may_take_longer_than_any_deadline(tmp_path):
    slow = {"step_seconds": _QUICK / 10}
    async with serving(tmp_path, network_timeout=_QUICK, keep_alive_timeout=_QUICK, fake=slow) as server:
        for stream in (False, True):
            reply = await server.complete(max_tokens=40, stream=stream, temperature=0)
            assert reply.status_code == 200
            assert "length" in reply.text


async def test_a_stream_that_nobody_reads_is_aborted(tmp_path):
    async with serving(tmp_path, network_timeout=_QUICK, fake={"context_length": 60_000}) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect((host, int(port)))
            body = {"prompt": "x", "max_tokens": 50_000, "stream": True, "logprobs": 20, "temperature": 0}
            encoded = json.dumps(body).encode()
            sock.sendall(head("/v1/completions", len(encoded)) + encoded)
            await until(lambda: server.engine.counters.running == 1)
            await server.until_metric("antiphon_requests_aborted_total", 1)
            await server.until_metric("antiphon_requests_running", 0)
            await server.check_accounts()


async def test_slow_senders_hold_up_nobody(tmp_path):
    async with serving(tmp_path, network_timeout=_NEVER) as server:
        async with AsyncExitStack() as slow:
            for number in range(100):
                _, writer = await slow.enter_async_context(connection(server))
                writer.write(head()[: 20 + number] if number % 2 else head() + _BODY[: number // 2])
            replies = await asyncio.gather(*(server.chat(max_tokens=3) for _ in range(20)))
            assert {reply.status_code for reply in replies} == {200}
            assert server.engine.counters.accepted == 20
        await server.until_metric("antiphon_requests_running", 0)


STREAM = b'{"prompt": "x", "max_tokens": 4000, "stream": true, "temperature": 0}'
SLOW = {"step_seconds": 0.05}


async def keep_busy(server: Served, stack: AsyncExitStack) -> None:
    """One more connection that is being answered."""
    running = server.engine.counters.running
    _, writer = await stack.enter_async_context(connection(server))
    writer.write(head("/v1/completions", len(STREAM)) + STREAM)
    await until(lambda: server.engine.counters.running == running + 1)


async def test_more_connections_than_can_be_answered_are_refused_and_probes_still_answered(tmp_path):
    async with AsyncExitStack() as busy, serving(tmp_path, max_connections=2, fake=SLOW) as server:
        await server.http.aclose()
        for _ in range(2):
            await keep_busy(server, busy)
        async with connection(server) as (late, lates):
            lates.write(head("/ready", 0, "GET"))
            assert (await read_answer(late))[0] == 200
            lates.write(head() + _BODY)
            status, headers, body = await read_answer(late)
            assert (status, body["error"]["code"]) == (503, "too_many_connections")
            assert (headers["connection"], headers["retry-after"]) == ("close", "1")
            assert await is_closed(late)
        await busy.aclose()


async def test_far_more_connections_are_closed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("antiphon.http.edge.connection_admission._SPARE_CONNECTIONS", 0)
    async with AsyncExitStack() as busy, serving(tmp_path, max_connections=1, fake=SLOW) as server:
        await server.http.aclose()
        await keep_busy(server, busy)
        async with connection(server) as (late, _):
            assert await is_closed(late)
        await busy.aclose()


async def test_a_newcomer_takes_the_place_of_whoever_has_been_silent_for_longest(tmp_path):
    async with serving(tmp_path, max_connections=3, network_timeout=_NEVER, keep_alive_timeout=_NEVER) as server:
        await server.http.aclose()
        async with AsyncExitStack() as stack:

            async def come(sent: bytes) -> asyncio.StreamReader:
                reader, writer = await stack.enter_async_context(connection(server))
                writer.write(sent)
                return reader

            body = await come(head(length=100) + b"{")
            idle = await come(head("/health", 0, "GET"))
            assert (await read_answer(idle))[0] == 200
            half = await come(head()[:30])
            for gone in (idle, half):
                newcomer = await come(head() + _BODY)
                assert await is_closed(gone)
                assert (await read_answer(newcomer))[0] == 200
            newcomers = [await come(head("/health", 0, "GET")) for _ in range(2)]
            assert [(await read_answer(each))[0] for each in newcomers] == [200, 200]
            assert not body.at_eof()  # a half-sent body goes last
            last = [await come(head(length=100) + b"{") for _ in range(3)]
            assert await is_closed(body) or not last


async def test_any_number_of_half_sent_heads_shuts_nobody_out(tmp_path):
    async with serving(tmp_path, max_connections=40, network_timeout=_NEVER) as server, AsyncExitStack() as slow:
        for number in range(120):
            _, writer = await slow.enter_async_context(connection(server))
            writer.write(head()[: 20 + number % 20])
            if number % 20 == 0:
                assert (await server.chat(max_tokens=1)).status_code == 200
        assert len(server.server._admission) <= 40


async def test_what_is_no_http_is_told_so(tmp_path):
    long = b"X-Long: " + b"x" * MAX_HEAD_BYTES + b"\r\n"
    many = b"".join(b"X-%d: y\r\n" % number for number in range(20_000))
    cases = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello over TLS", 400),
        (b"HELO\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: y\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + 2 * long, 431),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + 2 * long + b"\r\n", 431),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + many + b"\r\n", 431),
        (b"GET /" + b"x" * 3 * MAX_HEAD_BYTES, 431),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /health?" + b"x" * 17_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
    ]
    async with serving(tmp_path) as server:
        for sent, expected in cases:
            async with connection(server) as (reader, writer):
                writer.write(sent)
                status, headers, body = await read_answer(reader)
                assert (status, headers["connection"]) == (expected, "close"), sent[:60]
                assert body["error"]["type"] == "invalid_request_error"
                assert await is_closed(reader)
        assert (await server.chat(max_tokens=1)).status_code == 200


async def test_a_chunked_body_that_is_none_harms_nobody(tmp_path, caplog):
    async with serving(tmp_path) as server:
        async with connection(server) as (reader, writer):
            writer.write(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"
            )
            assert (await read_answer(reader))[0] == 400
            assert await is_closed(reader)
        await server.until_metric("antiphon_requests_refused_total", 1)
        assert "Traceback" not in caplog.text
        await server.check_accounts()
