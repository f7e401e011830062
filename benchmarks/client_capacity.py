#!/usr/bin/env python3
"""How many tokens a second one core of the load test's client takes, and how late its event loop is meanwhile.

    python benchmarks/client_capacity.py [--streams 200] [--tokens 300] [--rates 2500,5000,10000,15000] [--json OUT]

The other side is a process that only writes prepared bytes, one token of each stream after another, at the given rate
of all streams together. The client is the one of `antiphon bench`: it reads HTTP, decodes each event and makes a
record of each request. *CPU* is the client's processor time by wall-clock time; *late* is how late timers fired that
should fire every 10 ms, a hundredth of which were later than P99. `--client httpx2` reads the same with httpx2.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from record import record

from antiphon.bench.answers import Answer
from antiphon.bench.client import Client
from antiphon.bench.lag import LagMeter
from antiphon.bench.requests import Asker, Exchange, Request

_PART = b"""data: {"id":"chatcmpl-5f0c77d2","object":"chat.completion.chunk","created":1764370000,"model":"demo",\
"choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}\n\n"""
_END = b"""data: {"id":"chatcmpl-5f0c77d2","object":"chat.completion.chunk","created":1764370000,"model":"demo",\
"choices":[{"index":0,"delta":{},"finish_reason":"length"}],\
"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":10}}\n\ndata: [DONE]\n\n"""
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_PARTS = 16  # in which the streams take turns, so that they do not all come at once
_TIMEOUT = 600.0


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Stream(asyncio.Protocol):
    """The server's side of one connection; a request is what ends with a brace."""

    def __init__(self, streams: set[Stream]) -> None:
        self._streams = streams
        self.sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"}"):
            self.transport.write(_HEAD)
            self.sent = 0
            self._streams.add(self)


async def serve(rate: float, streams: int, tokens: int) -> None:
    """Write until the process is ended."""
    active: set[Stream] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stream(active), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    turn, due, part, end = 0, loop.time(), chunk(_PART), chunk(_END % tokens) + b"0\r\n\r\n"
    while True:
        due = max(due + streams / rate / _PARTS, loop.time() - 1.0)
        await asyncio.sleep(max(0.0, due - loop.time()))
        turn = (turn + 1) % _PARTS
        for number, stream in enumerate(list(active)):
            if number % _PARTS != turn:
                continue
            stream.sent += 1
            stream.transport.write(part if stream.sent <= tokens else end)
            if stream.sent > tokens:
                active.discard(stream)


async def with_own(port: int, streams: int) -> int:
    """Ask with the load test's client; returns the tokens that came."""
    tokens = 0

    def take(exchange: Exchange) -> None:
        nonlocal tokens
        assert exchange.record.end == "answered", exchange.record
        tokens += len(exchange.record.gaps_ms) + 1

    with Client(f"http://127.0.0.1:{port}") as client:
        asker = Asker(client, "/v1/chat/completions", timeout=_TIMEOUT)
        await asyncio.gather(*(asker.ask(Request(0, number, b'{"stream":true}'), take) for number in range(streams)))
    return tokens


async def with_httpx2(port: int, streams: int) -> int:
    """Ask with httpx2, and read the events in the same way."""
    import httpx2

    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    limits = httpx2.Limits(max_connections=None)

    async def one(client: httpx2.AsyncClient) -> int:
        answer = Answer(stream=True)
        async with client.stream("POST", url, content=b'{"stream":true}') as response:
            async for data in response.aiter_raw():
                answer.feed(data, time.monotonic())
        return len(answer.gaps) + 1

    async with httpx2.AsyncClient(timeout=None, limits=limits, trust_env=False) as client:
        return sum(await asyncio.gather(*(one(client) for _ in range(streams))))


async def measure(port: int, rate: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    lag = LagMeter()
    gc.collect()
    gc.freeze()  # as a load test does
    lag.start()
    began, cpu = time.monotonic(), time.process_time()
    tokens = await (with_httpx2 if arguments.client == "httpx2" else with_own)(port, arguments.streams)
    cpu, wall = time.process_time() - cpu, time.monotonic() - began
    await lag.stop()
    assert tokens == arguments.streams * arguments.tokens
    return {
        "offered": rate,
        "tokens_per_second": round(tokens / wall),
        "cpu": round(cpu / wall, 3),
        "microseconds_per_token": round(cpu / tokens * 1e6, 1),
        "late_p99_ms": round(lag.p99 * 1000, 2),
        "late_max_ms": round(lag.max * 1000, 2),
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table."""
    lines = ["| offered, tokens/s | tokens/s | CPU, cores | CPU per token | loop late, P99 |", "|---|---|---|---|---|"]
    for row in rows:
        late, cost = f"{row['late_p99_ms']:.1f} ms", f"{row['microseconds_per_token']:.0f} µs"
        lines.append(f"| {row['offered']:,.0f} | {row['tokens_per_second']:,} | {row['cpu']:.2f} | {cost} | {late} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=300, help="of each stream")
    parser.add_argument("--rates", default="2500,5000,10000,15000", help="tokens a second of all streams")
    parser.add_argument("--client", choices=["own", "httpx2"], default="own")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--serve", type=float, default=0, metavar="RATE", help="only write, and print the port first")
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve, arguments.streams, arguments.tokens))
    rows = []
    for rate in (float(each) for each in arguments.rates.split(",")):
        command = [sys.executable, __file__, *sys.argv[1:], "--serve", str(rate)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            rows.append(asyncio.run(measure(int(server.stdout.readline()), rate, arguments)))
            server.kill()
        print(rows[-1], file=sys.stderr)
    print(markdown(rows))
    record("client_capacity", {"client": arguments.client, "streams": arguments.streams, "rows": rows}, arguments.json)


if __name__ == "__main__":
    main()
