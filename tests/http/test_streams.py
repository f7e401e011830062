"""A stream's bytes, on real sockets: what comes first and last, silence, characters, a reader who does not read."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from http_server import Served, events, joined, named_events, serving, until
from patience import PATIENCE

from antiphon.http import sse
from antiphon.http.server import listen

HELLO = [{"role": "user", "content": "Hello"}]
PATHS = {
    "/v1/chat/completions": {"messages": HELLO, "max_tokens": 8},
    "/v1/completions": {"prompt": "Hello", "max_tokens": 8},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 16},
    "/v1/messages": {"messages": HELLO, "max_tokens": 8},
}


@asynccontextmanager
async def asking(
    server: Served, path: str, body: dict[str, Any], buffer: int = 0
) -> AsyncIterator[asyncio.StreamReader]:
    """A connection that has sent a request; `buffer`: bytes that this side takes before it reads."""
    host, port = server.url.removeprefix("http://").split(":")
    sock = socket.socket()
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 20)
        payload = json.dumps(body | {"stream": True}).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n"
        )
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + payload)
        try:
            yield reader
        finally:
            writer.close()


async def parts(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The body, as the server cut it into HTTP chunks."""
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        assert await reader.readline() == b"\r\n"


async def headers(reader: asyncio.StreamReader) -> dict[bytes, bytes]:
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).rstrip().split(b"\r\n")
    assert status.split()[1] == b"200"
    return {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}


@pytest.mark.parametrize("path", PATHS)
async def test_headers_keep_proxies_from_holding_a_stream_back(tmp_path, path):
    async with serving(tmp_path, fake={"step_seconds": 0.05}) as server, asking(server, path, PATHS[path]) as reader:
        told = await headers(reader)
        assert told[b"content-type"].startswith(b"text/event-stream")
        assert told[b"x-accel-buffering"] == b"no"
        assert told[b"cache-control"] == b"no-cache"
        assert b"content-length" not in told
        assert server.engine.counters.finished == 0  # they came before the answer was there


async def test_the_role_comes_first_before_there_is_a_token_and_the_end_once(tmp_path):
    async with serving(tmp_path, fake={"step_seconds": 0.05}) as server:
        async with asking(server, "/v1/chat/completions", PATHS["/v1/chat/completions"] | {"n": 2}) as reader:
            await headers(reader)
            body = parts(reader)
            first = [json.loads((await anext(body)).removeprefix(b"data: ")) for _ in range(2)]
            assert [chunk["choices"][0]["index"] for chunk in first] == [0, 1]
            assert all(chunk["choices"][0]["delta"] == {"role": "assistant", "content": ""} for chunk in first)
            assert server.engine.stats.num_computed_tokens == 0
            rest = b"".join([part async for part in body])
        assert rest.count(b"data: [DONE]\n\n") == 1
        assert rest.endswith(b"data: [DONE]\n\n")
        chunks = events(rest.decode())
        reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
        assert [reason for reason in reasons if reason] == ["length"] * 2
        assert not any("role" in choice["delta"] for chunk in chunks for choice in chunk["choices"])


async def test_characters_and_events_are_never_cut(tmp_path):
    said = "Grüße, 世界! 😀👩‍🚀é"
    script = f"{said}<｜end▁of▁sentence｜>"
    async with serving(tmp_path, script=script, fake={"step_seconds": 0.002}) as server:
        assert len(server.text.tokenizer.encode("👩‍🚀")) > 1  # it is spread over tokens
        for path, asked in PATHS.items():
            asked = asked | ({"max_output_tokens": 400} if "responses" in path else {"max_tokens": 400})
            async with asking(server, path, asked) as reader:
                await headers(reader)
                pieces = [part async for part in parts(reader)]
            assert all(part.endswith(b"\n\n") for part in pieces if part)
            text = b"".join(pieces).decode()  # strictly
            assert "\ufffd" not in text
            for part in pieces:
                part.decode()
            if path == "/v1/chat/completions":
                assert joined(events(text)) == said
            elif path == "/v1/messages":
                deltas = [event["delta"] for name, event in named_events(text) if name == "content_block_delta"]
                assert "".join(delta["text"] for delta in deltas) == said


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/v1/messages"])
async def test_a_long_silence_is_filled_with_comments(tmp_path, monkeypatch, path):
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 0.05)
    async with serving(tmp_path, fake={"step_seconds": 0.4}) as server:
        asked = PATHS[path] | ({"max_output_tokens": 16} if "responses" in path else {"max_tokens": 1})
        async with asking(server, path, asked) as reader:
            await headers(reader)
            body = parts(reader)
            seen = []
            async for part in body:
                seen.append(part)
                if seen.count(b": still at it\n\n") >= 3:
                    break
            assert set(seen[seen.index(b": still at it\n\n") :]) == {b": still at it\n\n"}


async def test_the_official_client_takes_no_notice_of_comments(tmp_path, monkeypatch):
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 0.05)
    async with serving(tmp_path, fake={"step_seconds": 0.2}) as server:
        stream = await server.openai.chat.completions.create(model="tiny", messages=HELLO, max_tokens=3, stream=True)
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason == "length"


async def test_an_answer_that_nobody_reads_is_given_up_and_counted(tmp_path, monkeypatch):
    def narrow(*address):
        listener = listen(*address)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # or the system would hold megabytes
        return listener

    monkeypatch.setattr("running_server.listen", narrow)
    # Bulky, so that the buffers on the way are full soon.
    body = {"messages": HELLO, "max_tokens": 50_000, "logprobs": True, "top_logprobs": 20, "n": 2}
    fake = {"context_length": 60_000}
    async with serving(tmp_path, max_unread_tokens=500, fake=fake) as server:
        async with asking(server, "/v1/chat/completions", body, buffer=4096) as reader:
            await server.until_metric('antiphon_requests_aborted_total{endpoint="chat"}', 1)
            now = await server.metrics()
            assert 500 < now["antiphon_generated_tokens_total"] < 100_000
            assert now['antiphon_requests_running{endpoint="chat"}'] == 0
            await until(lambda: server.engine.stats.running == 0)
            # Who comes back to reading finds what was made, and why there is no more.
            await headers(reader)
            text = b"".join([part async for part in parts(reader)]).decode()
        *chunks, last = events(text)
        assert last["error"]["code"] == "slow_reader"
        scored = [
            choice["logprobs"]["content"] for chunk in chunks for choice in chunk["choices"] if choice["logprobs"]
        ]
        assert sum(map(len, scored)) == now["antiphon_generated_tokens_total"]
        await server.check_accounts()
