#!/usr/bin/env python3
"""What surrounds the kernels: scheduling, detokenizing, HTTP and metrics, as a share of the step through HTTP.

    python benchmarks/step_overhead.py MODEL.gguf [--users 32] [--prompt 64] [--answer 128] [--json OUT]

Three clocks for the same decoding steps. *alone* is the runner by itself, as steps.py measures it, at the context
that answers have half-way. *in the engine* is what the engine takes for the same call while it serves, told by its
own metric: what it has more than alone is cores that the front and the client took meanwhile. *http* is the time from
step to step as the client sees it, while every user is being answered; what it has more than the call is scheduling,
messages and waiting between steps. Everything but *alone* is what surrounds the kernels.

*alone* is measured before and after each of `--rounds` rounds of answers, and what surrounds the kernels is told
round by round, since machines drift; medians are told. Processor time is that of each process over whole answers, by
tokens: the front's is validation, tokenizer, detokenizer, HTTP and metrics; the client shares the machine. The
front's share of what both of the server's processes use needs no second measurement to be compared with.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from record import record
from servers import Case, Server
from side_by_side import decode_rate
from steps import FILLED_AT_ONCE, write_every_block
from steps import Case as Step

from antiphon.config import EngineConfig
from antiphon.loading.assembly import planned_for_this_machine
from antiphon.runtime.cpu import CpuRunner, create_runner

STEPS_ALONE = 20
SCRAPED_EVERY = 0.25  # seconds
STEP_SECONDS = re.compile(rb"^antiphon_step_seconds\{[^}]*\} (\S+)$", re.MULTILINE)


async def scrape(port: int) -> float:
    """The engine's last step, in seconds, out of /metrics."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    found = STEP_SECONDS.search((await reader.read()).replace(b"\r\n", b"\n"))
    writer.close()
    assert found, "/metrics tells no antiphon_step_seconds"
    return float(found[1])


async def serve_once(server: Server, case: Case) -> tuple[float, float]:
    """Seconds from step to step, and of the engine's part of them, while every user is being answered."""
    running = asyncio.ensure_future(server.run(case))
    seen: list[tuple[float, float]] = []
    while not running.done():
        seen.append((time.monotonic(), await scrape(server.port)))
        await asyncio.wait([running], timeout=SCRAPED_EVERY)
    streams = await running
    start, end = max(stream.first for stream in streams), min(stream.last for stream in streams)
    rate = decode_rate(streams)
    inside = [seconds for at, seconds in seen if start < at <= end]
    if not rate or not inside:
        sys.exit("the answers are too short for a time in which all are being decoded")
    return case.users / rate, statistics.mean(inside)


def processor_time(server: Server, before: dict[int, float]) -> dict[str, float]:
    """What the front (with the renderer) and the engine used since."""
    used = {"front": 0.0, "engine": 0.0}
    for pid, seconds in server.cpu_seconds().items():
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        used["engine" if b"antiphon.engine.worker" in command else "front"] += seconds - before.get(pid, 0.0)
    return used


def alone(runner: CpuRunner, case: Case) -> float:
    step = Step(case.users, case.prompt + case.answer // 2, 1)
    for _ in range(1 + STEPS_ALONE):
        step.run(runner)
    return statistics.median(step.seconds[1:])


def measure(server: Server, runner: CpuRunner, case: Case, rounds: int) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {"alone": [], "in the engine": [], "http": []}
    used: dict[str, list[float]] = {"front": [], "engine": [], "client": []}
    after = alone(runner, case)
    for _ in range(rounds):
        before_answers, own = server.cpu_seconds(), time.process_time()
        step, inside = asyncio.run(serve_once(server, case))
        own = time.process_time() - own
        for name, value in {**processor_time(server, before_answers), "client": own}.items():
            used[name].append(value / (case.users * case.answer))
        before, after = after, alone(runner, case)
        for name, value in {"alone": (before + after) / 2, "in the engine": inside, "http": step}.items():
            seconds[name].append(value)
        print(", ".join(f"{name} {values[-1] * 1e3:.2f} ms" for name, values in seconds.items()), file=sys.stderr)
    return {"seconds": medians(seconds), "cpu_seconds_per_token": medians(used), **shares(seconds, used)}


def medians(runs: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in runs.items()}


def shares(seconds: dict[str, list[float]], used: dict[str, list[float]]) -> dict[str, float]:
    """What is not kernels, or not the engine's call, of a step through HTTP; the front's part of processor time."""
    rounds = list(zip(seconds["alone"], seconds["in the engine"], seconds["http"], strict=True))
    return {
        "around_the_kernels": statistics.median(1 - alone / http for alone, _, http in rounds),
        "between_calls": statistics.median(1 - inside / http for _, inside, http in rounds),
        "front_share": statistics.median(f / (f + e) for f, e in zip(used["front"], used["engine"], strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--answer", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--logs", type=Path, default=Path("."), help="folder for the server's output")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    case = Case(arguments.users, arguments.prompt, arguments.answer)
    room = case.users * (case.prompt + case.answer + CpuRunner.block_size)
    config = EngineConfig(arguments.model, max_num_sequences=FILLED_AT_ONCE, kv_cache_tokens=room)
    runner = create_runner(planned_for_this_machine(config))
    write_every_block(runner)
    # Without drafts: a step is to have a row of each user.
    options = f"--port {{port}} --kv-cache-tokens {room} --speculation off"
    server = Server("antiphon", f"{sys.executable} -m antiphon serve {arguments.model} {options}")
    try:
        server.start(arguments.logs)
        result = measure(server, runner, case, arguments.rounds)
    finally:
        server.stop()
    for name, value in result["seconds"].items():
        print(f"{name}: {value * 1e3:.2f} ms")
    for name in ("around_the_kernels", "between_calls", "front_share"):
        print(f"{name.replace('_', ' ')}: {result[name]:.1%}")
    for name, value in result["cpu_seconds_per_token"].items():
        print(f"{name}: {value * 1e6:.0f} µs of processor time a token")
    record("step-overhead", {"case": vars(case), **result}, arguments.json, arguments.model)


if __name__ == "__main__":
    main()
