#!/usr/bin/env python3
"""Several servers, one client, in turn: tokens a second, waiting times and memory of each, and the ratios between them.

    python benchmarks/side_by_side.py \\
      --server 'antiphon=antiphon serve MODEL.gguf --port {port}' \\
      --server 'llama.cpp=llama-server -m MODEL.gguf --port {port} -np 32 --no-kv-unified -c 8192 -fa on'

All servers are started at once and stay up; a case is run against one, then the next, and so on round after round, so a
machine whose speed drifts drifts for all of them. Figures are medians over the rounds, ratios are to the last server
named, taken round by round. Prompts are random token ids, new in every run, so that no prefix cache helps; a request
asks for exactly its number of tokens (`ignore_eos`), streamed, over a connection of its own.

*tokens/s* is the whole path: all tokens of all users by the time from the first request sent to the last byte read.
*decode* adds up the users' own rates after their first token. *prefill* is prompt tokens by the time to the only token.
Memory is what the server's processes hold in the end, shared pages counted once among them (PSS).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

START_TIMEOUT = 600.0  # seconds
VOCABULARY = 40_000  # token ids are drawn below this: ordinary text in any of the models


@dataclass(frozen=True)
class Case:
    """`users` requests at once, each with a prompt and an answer of so many tokens."""

    users: int
    prompt: int
    answer: int

    @property
    def is_prefill(self) -> bool:
        return self.answer == 1


@dataclass
class Stream:
    """When one answer's parts came, in seconds of the monotonic clock, and how many tokens it had."""

    sent: float
    first: float
    last: float
    tokens: int


@dataclass
class Figures:
    """One case against one server, once."""

    throughput: float  # tokens/s of the whole path; of prefill, prompt tokens/s
    decode: float  # tokens/s after the first ones
    first_token: float  # seconds, median over users

    @classmethod
    def of(cls, case: Case, streams: list[Stream]) -> Figures:
        wall = max(stream.last for stream in streams) - min(stream.sent for stream in streams)
        tokens = case.users * case.prompt if case.is_prefill else sum(stream.tokens for stream in streams)
        rates = [(s.tokens - 1) / (s.last - s.first) for s in streams if s.tokens > 1 and s.last > s.first]
        return cls(tokens / wall, sum(rates), statistics.median(s.first - s.sent for s in streams))


@dataclass
class Server:
    """A server under test: its process group, and what it was measured at."""

    name: str
    command: str
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    figures: dict[Case, list[Figures]] = field(default_factory=dict)

    def start(self, log_folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        log = (log_folder / f"{self.name}.log").open("wb")
        words = shlex.split(self.command.format(port=self.port))
        self.process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)

    def wait_ready(self) -> None:
        """Until it answers a request for one token."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                sys.exit(f"{self.name} ended with status {self.process.returncode}; see its log")
            try:
                asyncio.run(self.run(Case(1, 8, 1)))
                return
            except (OSError, ConnectionError, ValueError):
                time.sleep(0.5)
        sys.exit(f"{self.name} was not ready within {START_TIMEOUT:.0f} s; see its log")

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(timeout=60)

    async def run(self, case: Case) -> Figures:
        streams = [complete(self.port, case) for _ in range(case.users)]
        return Figures.of(case, await asyncio.gather(*streams))

    def memory_bytes(self) -> int:
        """PSS of every process in the server's group."""
        assert self.process is not None
        total = 0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if os.getpgid(int(folder.name)) == self.process.pid:
                    rollup = (folder / "smaps_rollup").read_text()
                    total += 1024 * int(
                        next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1]
                    )
            except (OSError, StopIteration):
                continue  # it has just ended
        return total


async def complete(port: int, case: Case) -> Stream:
    """One streamed completion, read as raw lines: the client must cost as little as can be."""
    prompt = [random.randrange(1000, VOCABULARY) for _ in range(case.prompt)]  # noqa: S311  # noise, no secret
    wanted = {"prompt": prompt, "max_tokens": case.answer, "stream": True, "temperature": 0, "ignore_eos": True}
    body = json.dumps({**wanted, "stream_options": {"include_usage": True}}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    sent = time.monotonic()
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    first = last = 0.0
    usage = b""
    if b" 200 " not in await reader.readline():
        raise ConnectionError((await reader.read()).decode(errors="replace")[-1000:])
    async for line in reader:
        if line.startswith(b"data: {"):
            last = time.monotonic()
            first = first or last
            if b'"usage":{' in line:
                usage = line
    writer.close()
    if not usage:
        raise ConnectionError("the stream ended without its usage")
    return Stream(sent, first, last, json.loads(usage[6:])["usage"]["completion_tokens"])


def measure(servers: list[Server], cases: list[Case], rounds: int) -> None:
    """One round that is not counted, then every case against every server in turn."""
    for number in range(rounds + 1):
        for case in cases:
            for server in servers:
                figures = asyncio.run(server.run(case))
                if number:
                    server.figures.setdefault(case, []).append(figures)


def ratio(server: Server, other: Server, case: Case, name: str) -> float:
    """The median of the rounds' ratios."""
    pairs = zip(server.figures[case], other.figures[case], strict=True)
    return statistics.median(getattr(ours, name) / getattr(theirs, name) for ours, theirs in pairs)


def report(servers: list[Server], cases: list[Case]) -> None:
    """A table in Markdown, and every figure as JSON on the last line."""
    print("| users | prompt | answer | server | tokens/s | decode | first token, ms | ratio | decode's |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in cases:
        for server in servers:
            runs = server.figures[case]
            median = [statistics.median(getattr(run, name) for run in runs) for name in ("throughput", "first_token")]
            decode = "" if case.is_prefill else f"{statistics.median(run.decode for run in runs):.1f}"
            ratios = [f"{ratio(server, servers[-1], case, 'throughput'):.2f}"]
            ratios.append("" if case.is_prefill else f"{ratio(server, servers[-1], case, 'decode'):.2f}")
            row = [case.users, f"{case.prompt:,}", case.answer, server.name, f"{median[0]:.1f}", decode]
            print(f"| {' | '.join(map(str, [*row, f'{median[1] * 1e3:.0f}', *ratios]))} |")
    memory = {server.name: server.memory_bytes() for server in servers}
    print("\nMemory in the end: " + ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in memory.items()))
    runs = {s.name: [{**vars(case), "runs": [vars(run) for run in s.figures[case]]} for case in cases] for s in servers}
    print(json.dumps({"commands": {s.name: s.command for s in servers}, "memory_bytes": memory, "cases": runs}))


def parse_case(text: str) -> Case:
    """`USERSxPROMPT+ANSWER`: 32x64+128."""
    users, _, lengths = text.partition("x")
    prompt, _, answer = lengths.partition("+")
    return Case(int(users), int(prompt), int(answer))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", required=True, metavar="NAME=COMMAND", help="with {port} in it")
    cases = "1x64+128,8x64+128,16x64+128,32x64+128,1x512+1"
    parser.add_argument("--cases", default=cases, help=f"USERSxPROMPT+ANSWER,…  [{cases}]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--logs", type=Path, default=Path("."), help="folder for the servers' output")
    arguments = parser.parse_args()
    servers = [Server(*text.split("=", 1)) for text in arguments.server]
    wanted = [parse_case(text) for text in arguments.cases.split(",")]
    try:
        for server in servers:
            server.start(arguments.logs)
            server.wait_ready()
        measure(servers, wanted, arguments.rounds)
        report(servers, wanted)
    finally:
        for server in servers:
            server.stop()


if __name__ == "__main__":
    main()
