#!/usr/bin/env python3
"""What one front process carries: tokens a second over many streams, from a fake engine that costs the front nothing.

    python benchmarks/front_capacity.py [MODEL] [--streams 200] [--tokens 300] [--rate 15000] [--profile]
    python benchmarks/front_capacity.py [MODEL] --first-token 200 [--step 0.03]

The front is the whole server as `antiphon serve` runs it, in a process of its own; MODEL (the demo model) gives the
tokenizer alone. `--rate` is how many tokens a second the engine hands over, one to each stream in a step; 0: as fast as
it can. All streams are chats, on a connection of their own, and begin at once; the client does no more than count.

The front is one thread. *tokens per CPU second* is what it does with a core to itself, told by the kernel's account of
its time, so that waiting for a busy machine does not count. *kept up* is the whole path: tokens by the time from the
first to the last of them. *µs a token* is the front's own time and the kernel's, mostly for sending; what a request
costs before its first token is shared among its tokens. *tokens a chunk* above 1 says that tokens waited and went out
together.

With `--first-token` it measures instead what an idle server adds to a request: so many requests of some ten tokens, one
after another, each for one token of an engine whose step takes `--step` seconds. *Added* is the time from sending the
request to its first token without the step.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_HEAD = "| streams | offered, tokens/s | tokens | tokens per CPU second | kept up | tokens a chunk | µs a token |"
_FIRST_HEAD = "| step, ms | added, ms (median) | added, ms (95 %) | first token / step | CPU ms a request |"
_TOP = 25  # functions of a profile


@dataclass
class Outcome:
    """What one stream saw."""

    first: float = 0.0  # time.perf_counter() of its first bytes
    last: float = 0.0
    chunks: int = 0
    tokens: int = 0


def serve_front(arguments: argparse.Namespace) -> None:
    """The front's process."""
    from antiphon.commands.serving import run
    from antiphon.config import EngineConfig, FakeSettings, ServerConfig

    step = arguments.streams / arguments.rate if arguments.rate else 0.0
    step = arguments.step if arguments.first_token else step
    engine = EngineConfig(
        model=arguments.model,
        fake=True,
        fake_settings=FakeSettings(step_seconds=step),
        max_num_sequences=arguments.streams,
        max_batch_tokens=max(512, 8 * arguments.streams),
        kv_cache_tokens=arguments.streams * 2048,
        target_step_seconds=0.0,
    )
    settings = ServerConfig(
        port=0, max_queued_requests=arguments.streams, access_log="json" if arguments.access_log else "off"
    )
    if not arguments.profile:
        run(engine, settings)
        return
    profile = cProfile.Profile()
    try:
        profile.runcall(run, engine, settings)
    finally:
        profile.dump_stats(arguments.front)


async def read_stream(host: str, port: int, number: int, tokens: int) -> Outcome:
    """Ask once, and count what comes."""
    body = {
        "messages": [{"role": "user", "content": f"Question {number}"}],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "temperature": 0,
    }
    encoded = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"{head}Connection: close\r\nContent-Length: {len(encoded)}\r\n\r\n".encode() + encoded)
    outcome, tail = Outcome(), b""
    while data := await reader.read(1 << 16):
        outcome.last = time.perf_counter()
        outcome.first = outcome.first or outcome.last
        outcome.chunks += data.count(b'"content":')
        tail = (tail + data)[-2000:]
    writer.close()
    usage = json.loads(tail.decode().rpartition('"usage":')[2].partition("}}")[0] + "}}")
    outcome.tokens = usage["completion_tokens"]
    return outcome


def cpu_seconds(pid: int) -> tuple[float, float]:
    """What a process has used, itself and in the kernel, without those it started."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / _TICKS, int(fields[12]) / _TICKS


async def time_first_tokens(url: str, pid: int, arguments: argparse.Namespace) -> None:
    """Ask one request after another, and print what each took beside the engine's step."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, port)
    added, before = [], sum(cpu_seconds(pid))
    for number in range(arguments.first_token):
        message = {"role": "user", "content": f"Question {number}"}
        body = json.dumps({"messages": [message], "max_tokens": 1, "stream": True, "ignore_eos": True}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        began = time.perf_counter()
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer, first = b"", 0.0
        while not answer.endswith(b"0\r\n\r\n"):
            answer += await reader.read(1 << 16)
            if not first and answer.count(b'"delta"') > 1:  # the first delta has the role alone
                first = time.perf_counter()
        added.append(first - began - arguments.step)
    used = (sum(cpu_seconds(pid)) - before) / arguments.first_token
    ordered = sorted(added)
    median, late = ordered[len(ordered) // 2], ordered[int(0.95 * len(ordered))]
    share = (arguments.step + median) / arguments.step
    print(
        f"| {arguments.step * 1e3:.0f} | {median * 1e3:.2f} | {late * 1e3:.2f} | {share:.3f} | {used * 1e3:.2f} |",
        flush=True,
    )
    writer.close()


async def measure(url: str, pid: int, arguments: argparse.Namespace) -> None:
    """One run of all streams, and what it came to."""
    host, _, port = url.removeprefix("http://").partition(":")
    before = cpu_seconds(pid)
    streams = (read_stream(host, int(port), number, arguments.tokens) for number in range(arguments.streams))
    outcomes = await asyncio.gather(*streams)
    own, kernels = (after - earlier for after, earlier in zip(cpu_seconds(pid), before, strict=True))
    used = own + kernels
    tokens, chunks = sum(each.tokens for each in outcomes), sum(each.chunks for each in outcomes)
    seconds = max(each.last for each in outcomes) - min(each.first for each in outcomes)
    assert tokens == arguments.streams * arguments.tokens
    print(
        f"| {arguments.streams} | {arguments.rate or 'free'} | {tokens:,} | {tokens / used:,.0f} | "
        f"{tokens / seconds:,.0f} | {tokens / chunks:.2f} | {own / tokens * 1e6:.1f} + "
        f"{kernels / tokens * 1e6:.1f} |",
        flush=True,
    )


def run_benchmark(arguments: argparse.Namespace) -> None:
    """Start the front, measure it, stop it."""
    with tempfile.NamedTemporaryFile(suffix=".profile") as profile:
        command = [sys.executable, __file__, *sys.argv[1:], "--front", profile.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as front:
            assert front.stdout is not None
            url = front.stdout.readline().split()[1].removesuffix("/v1/chat/completions")
            head, run = (_FIRST_HEAD, time_first_tokens) if arguments.first_token else (_HEAD, measure)
            print(head)
            print("|---" * (head.count("|") - 1) + "|")
            for _ in range(arguments.repeats):
                asyncio.run(run(url, front.pid, arguments))
            front.send_signal(signal.SIGTERM)
            front.communicate()
        if arguments.profile:
            pstats.Stats(profile.name).sort_stats("tottime").print_stats(_TOP)


def main() -> None:
    """Measure, or be what is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=300, help="of each answer")
    parser.add_argument("--rate", type=float, default=0, help="tokens a second that the engine hands over")
    parser.add_argument("--first-token", type=int, default=0, help="time the first token of so many requests instead")
    parser.add_argument("--step", type=float, default=0.03, help="seconds of a step, with --first-token")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--access-log", action="store_true")
    parser.add_argument("--profile", action="store_true", help="show where the front's time goes; it takes longer then")
    parser.add_argument("--front", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    serve_front(arguments) if arguments.front else run_benchmark(arguments)


if __name__ == "__main__":
    main()
