#!/usr/bin/env python3
"""What an engine behind an engine host costs, compared with a local one: time from step to step, and processor time.

    python benchmarks/remote_overhead.py [MODEL] [--users 1,32] [--tokens 256] [--rounds 5] [--json OUT]

Two clients, one with a local engine and one whose engine runs behind `antiphon engine-host` on 127.0.0.1 (a process of
its own), answer the same requests in turn, round by round, since machines drift. Without MODEL the engines are fake: a
step takes no time, so what is left is scheduling and messages. `step_seconds` is the time from one token of an answer
to its next, as the client sees it: the median of all answers of a round, and of the rounds. `cpu_seconds_per_token` is
the processor time of the client's process, of the engine's, and of the host's. The network itself is not measured: a
real one adds its round trip to the first token of an answer, and nothing to the time between tokens, since nobody waits
for an acknowledgement.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import secrets
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from record import record
from rich.console import Console

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.client import EngineClient, TokenStream
from antiphon.loading.assembly import assemble
from antiphon.loading.model import resolve_model
from antiphon.request import GenerateRequest, SamplingParams

SECRET = secrets.token_hex(32)
PROMPT_TOKENS = 32


@dataclass
class Side:
    """One of the two clients, and what was measured of it."""

    client: EngineClient
    pids: dict[str, int]
    step_seconds: list[float] = field(default_factory=list)
    cpu_seconds: dict[str, list[float]] = field(default_factory=dict)


@asynccontextmanager
async def engine_host(model: str) -> AsyncIterator[tuple[str, int]]:
    """A host's address and process id."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "antiphon", "engine-host", *([model] if model else []), "--port", "0"),
        env=os.environ | {"ANTIPHON_ENGINE_SECRET": SECRET},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        while not (found := re.search(rb"tcp://\S+:\d+", line := await process.stderr.readline())):
            if not line:
                sys.exit("the engine host did not start")
        yield found[0].decode(), process.pid
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def running(config: EngineConfig) -> AsyncIterator[EngineClient]:
    client = EngineClient(config, ServerConfig(engine_secret=SECRET))
    await client.start()
    try:
        await client.wait_ready()
        yield client
    finally:
        await client.stop()


@contextmanager
def settings_of(model: str) -> Iterator[EngineConfig]:
    """The engines' settings, while the model's files are open."""
    if not model:
        yield EngineConfig("", engines=1, fake=True)
        return
    found = resolve_model(model, Console(stderr=True))
    assembly = assemble(found, EngineConfig(model, engines=1, kv_cache_tokens=32_768), ServerConfig())
    assembly.model.text.close()
    yield assembly.engine
    assembly.checkpoint.files.close()


def child_of(pid: int) -> int:
    """The engine of a host."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def step_seconds(stream: TokenStream) -> float:
    """The mean time from one token of an answer to its next."""
    at: list[float] = []
    async for event in stream:
        if event.token_id is not None:
            at.append(time.perf_counter())
    return (at[-1] - at[0]) / (len(at) - 1)


async def measure(side: Side, name: str, users: int, tokens: int) -> None:
    before = {what: cpu_seconds(pid) for what, pid in side.pids.items()}
    sampling = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    requests = [GenerateRequest(f"{name}-{n}", [n + 1] * PROMPT_TOKENS, sampling) for n in range(users)]
    found = await asyncio.gather(*(step_seconds(side.client.generate(request)) for request in requests))
    side.step_seconds.append(statistics.median(found))
    for what, pid in side.pids.items():
        side.cpu_seconds.setdefault(what, []).append((cpu_seconds(pid) - before[what]) / (users * tokens))


async def compare(config: EngineConfig, users: int, tokens: int, rounds: int) -> dict[str, Any]:
    async with (
        engine_host(config.model) as (address, host),
        running(config) as local,
        running(replace(config, engines=0, remote_engines=(address,))) as remote,
    ):
        own = os.getpid()
        assert local.engine_pid
        sides = {
            "local": Side(local, {"client": own, "engine": local.engine_pid}),
            "remote": Side(remote, {"client": own, "engine": child_of(host), "host": host}),
        }
        for number in range(rounds + 1):  # the first is not counted
            for name, side in sides.items():
                await measure(side, f"{name}-{number}", users, tokens)
                print(f"{users} users, {name}: {side.step_seconds[-1] * 1e6:.0f} µs a step", file=sys.stderr)
    return {
        name: {
            "step_seconds": statistics.median(side.step_seconds[1:]),
            "cpu_seconds_per_token": {what: statistics.median(each[1:]) for what, each in side.cpu_seconds.items()},
        }
        for name, side in sides.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="")
    parser.add_argument("--users", default="1,32")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    with settings_of(arguments.model) as config:
        for users in map(int, arguments.users.split(",")):
            results[str(users)] = asyncio.run(compare(config, users, arguments.tokens, arguments.rounds))
    record("remote_overhead", {"tokens": arguments.tokens, "users": results}, arguments.json, arguments.model or "fake")


if __name__ == "__main__":
    main()
