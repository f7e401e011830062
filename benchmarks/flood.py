#!/usr/bin/env python3
"""How long one client waits while another one sends 200 requests at once.

    python benchmarks/flood.py PORT --greedy KEY --modest KEY [--requests 200] [--json OUT]

Asks a running server that has these two API keys (`antiphon serve MODEL --api-key-file keys`). The modest key sends a
short chat a second, first alone, then while the greedy key's requests are being answered; each is streamed. Times are
from sending a request to its first text, by the client.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from overload_report import percentile
from record import record

from antiphon.bench.client import ask

PATIENCE = 600.0  # seconds


async def chat(port: int, key: str, tokens: int) -> tuple[int, float | None]:
    """The status of one request with a new prompt, and the seconds to its first text."""
    content = f"Note {random.randrange(1 << 30):x}: tell me something about the sea."  # noqa: S311
    body: dict[str, Any] = {"messages": [{"role": "user", "content": content}], "max_tokens": tokens}
    body |= {"stream": True, "ignore_eos": True, "temperature": 0}
    async with asyncio.timeout(PATIENCE):
        reply = await ask(f"http://127.0.0.1:{port}", "/v1/chat/completions", body, {"Authorization": f"Bearer {key}"})
    return reply.status, None if reply.first_text is None else reply.first_text - reply.sent


async def one_a_second(port: int, key: str, number: int, tokens: int) -> list[tuple[int, float | None]]:
    tasks = []
    for _ in range(number):
        tasks.append(asyncio.create_task(chat(port, key, tokens)))
        await asyncio.sleep(1)
    return list(await asyncio.gather(*tasks))


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    port, tokens = arguments.port, arguments.tokens
    alone = await one_a_second(port, arguments.modest, arguments.seconds, tokens)
    began = time.monotonic()
    flood = [asyncio.create_task(chat(port, arguments.greedy, tokens)) for _ in range(arguments.requests)]
    await asyncio.sleep(1)
    beside = await one_a_second(port, arguments.modest, arguments.seconds, tokens)
    num_left = sum(not task.done() for task in flood)
    answers = await asyncio.gather(*flood)
    flood_seconds = round(time.monotonic() - began, 1)
    row: dict[str, Any] = {"flood_unfinished_at_the_last": num_left, "flood_seconds": flood_seconds}
    for name, seen in (("alone", alone), ("beside_the_flood", beside), ("flood", answers)):
        waits = [wait for _, wait in seen if wait is not None]
        row[name] = {f"p{share}": _rounded(percentile(waits, share / 100)) for share in (50, 95)}
        row[name] |= {"statuses": dict(Counter(str(status) for status, _ in seen))}
    return row


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--greedy", required=True, help="the key that floods")
    parser.add_argument("--modest", required=True, help="the key that asks once a second")
    parser.add_argument("--requests", type=int, default=200, help="of the flood")
    parser.add_argument("--seconds", type=int, default=10, help="for which the modest key asks, alone and beside")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments))
    for name, value in figures.items():
        print(f"{name:30} {value}")
    record("flood", figures, arguments.json)


if __name__ == "__main__":
    main()
