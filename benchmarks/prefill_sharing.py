#!/usr/bin/env python3
"""How long a newcomer with a short prompt waits for its first token while a long prompt is read.

    python benchmarks/prefill_sharing.py http://127.0.0.1:8000 [--long 8000] [--short 20] [--every 7.3] [--json OUT]

Asks a running server (`antiphon serve MODEL --context-length 8192`). First a long prompt alone, then another one, and
while it is read a short prompt every few seconds, one at a time; each answer has one token. Prompts are random token
ids, so that none is found in the prefix cache. Times are from sending a request to its first token, by the client.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from pathlib import Path

import httpx2
from record import record

_PATIENCE = 600.0  # seconds
_VOCABULARY = 40_000


async def first_token_after(client: httpx2.AsyncClient, num_tokens: int) -> float:
    """Seconds until the first token after a random prompt."""
    prompt = [random.randrange(1000, _VOCABULARY) for _ in range(num_tokens)]  # noqa: S311
    began = time.monotonic()
    reply = await client.post("/v1/completions", json={"prompt": prompt, "max_tokens": 1, "ignore_eos": True})
    reply.raise_for_status()
    usage = reply.json()["usage"]
    assert usage["prompt_tokens"] == num_tokens
    assert not usage["prompt_tokens_details"]["cached_tokens"]
    return time.monotonic() - began


async def newcomers(
    client: httpx2.AsyncClient, long: asyncio.Task[float], num_tokens: int, every: float
) -> list[float]:
    """The times of the short prompts that are sent until the long one is done."""
    times: list[float] = []
    while True:
        await asyncio.wait([long], timeout=every)
        if long.done():
            return times
        times.append(await first_token_after(client, num_tokens))


async def measure(url: str, long: int, short: int, every: float) -> dict[str, float | int]:
    async with httpx2.AsyncClient(base_url=url, timeout=_PATIENCE, trust_env=False) as client:
        await first_token_after(client, short)  # the server has served before
        short_alone = await first_token_after(client, short)
        long_alone = await first_token_after(client, long)
        task = asyncio.create_task(first_token_after(client, long))
        times = await newcomers(client, task, short, every)
        return {
            "short_alone": round(short_alone, 2),
            "long_alone": round(long_alone, 1),
            "long_beside_newcomers": round(await task, 1),
            "newcomers": len(times),
            "newcomer_median": round(statistics.median(times), 2),
            "newcomer_worst": round(max(times), 2),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--long", type=int, default=8000, help="tokens of the long prompt")
    parser.add_argument("--short", type=int, default=20, help="tokens of each newcomer's prompt")
    parser.add_argument("--every", type=float, default=7.3, help="seconds between two newcomers")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.url, arguments.long, arguments.short, arguments.every))
    for name, value in figures.items():
        print(f"{name:24} {value}")
    record("prefill_sharing", {"long": arguments.long, "short": arguments.short, **figures}, arguments.json)


if __name__ == "__main__":
    main()
