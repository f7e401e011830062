#!/usr/bin/env python3
"""Thirty equal requests at once against one alone: a class that sends the same worksheet.

    python benchmarks/equal_requests.py http://127.0.0.1:8000 [--requests 30] [--tokens 200] [--rounds 5] [--json OUT]

Each round has a question of its own, asked alone and then, with another number in it, by everybody at once. The time is
from the first request to the end of the last answer; all answers must be the same text.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import httpx2
from record import record

_PATIENCE = 600.0  # seconds


async def answers(client: httpx2.AsyncClient, number: int, requests: int, tokens: int) -> float:
    """Seconds until the last of `requests` equal answers."""
    question = f"Worksheet {number:04}: explain step by step how to add {number} and 17, then name three uses of it."
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": tokens, "temperature": 0}
    began = time.monotonic()
    replies = await asyncio.gather(
        *(client.post("/v1/chat/completions", json={**body, "ignore_eos": True}) for _ in range(requests))
    )
    took = time.monotonic() - began
    texts = {str(reply.raise_for_status().json()["choices"][0]["message"]) for reply in replies}
    assert len(texts) == 1, "the answers differ"
    assert all(reply.json()["usage"]["completion_tokens"] == tokens for reply in replies)
    return took


async def measure(url: str, requests: int, tokens: int, rounds: int) -> dict[str, Any]:
    limits = httpx2.Limits(max_connections=requests)
    async with httpx2.AsyncClient(base_url=url, timeout=_PATIENCE, limits=limits, trust_env=False) as client:
        await answers(client, 0, requests, 8)
        alone: list[float] = []
        together: list[float] = []
        for number in range(1, rounds + 1):
            pair = [(alone, 1, 2 * number), (together, requests, 2 * number + 1)]
            for times, count, question in pair if number % 2 else reversed(pair):
                times.append(await answers(client, 1000 + question, count, tokens))
    ratios = [b / a for a, b in zip(alone, together, strict=True)]
    return {"alone": alone, "together": together, "ratio": statistics.median(ratios), "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--requests", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.url, arguments.requests, arguments.tokens, arguments.rounds))
    alone, together = statistics.median(figures["alone"]), statistics.median(figures["together"])
    print(
        f"one alone {alone:.2f} s, {arguments.requests} at once {together:.2f} s: {figures['ratio']:.2f} times as long"
    )
    record("equal_requests", {"requests": arguments.requests, "tokens": arguments.tokens, **figures}, arguments.json)


if __name__ == "__main__":
    main()
