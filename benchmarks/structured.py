#!/usr/bin/env python3
"""Structured answers at temperature 1: do they fit their schemas, and are they the same in any company?

    python benchmarks/structured.py http://127.0.0.1:8000 [--schemas 200] [--together 32] [--alone 40]

Asks a running server (`antiphon serve MODEL`) to fill in schemas out of seeds (`schemas.py`): objects, arrays, enums,
patterns, ranges, formats; all of them beside each other, and some once more with nobody beside them and the same seed.
Recursive ones are left out: a small model recurses until max_tokens. An answer is judged by `jsonschema-rs`, a library
that has nothing to do with the one that constrains it. *cut*: max_tokens came before the end, so it fits nothing.
Prints a table, JSON on the last line; exits with 1 if an answer that came to its end does not fit, or one differs in
company.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass

import httpx2
from schemas import is_recursive, problem, random_schema

_PATIENCE = 600.0  # seconds
_HEAD = "| schemas | fit | cut | do not fit | tokens/s | asked again alone | the same |"


@dataclass(frozen=True)
class Answer:
    """What one schema was answered with."""

    text: str
    finish_reason: str
    num_tokens: int

    def verdict(self, seed: int) -> str:
        """Whether it fits the schema of its seed."""
        if self.finish_reason != "stop":
            return "cut"
        return "fits" if problem(random_schema(seed), self.text) is None else "does not fit"


async def ask(client: httpx2.AsyncClient, seed: int, max_tokens: int) -> Answer:
    body = {
        "messages": [{"role": "user", "content": "Fill in some data."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "data", "schema": random_schema(seed)}},
        "temperature": 1.0,
        "seed": seed,
        "max_tokens": max_tokens,
    }
    reply = await client.post("/v1/chat/completions", json=body)
    reply.raise_for_status()
    answer = reply.json()
    choice = answer["choices"][0]
    return Answer(choice["message"]["content"], choice["finish_reason"], answer["usage"]["completion_tokens"])


async def ask_all(url: str, seeds: list[int], together: int, max_tokens: int) -> tuple[list[Answer], float]:
    """The answers to all schemas, so many at a time, and how long they took."""
    places = asyncio.Semaphore(together)
    async with httpx2.AsyncClient(base_url=url, timeout=_PATIENCE, trust_env=False) as client:

        async def one(seed: int) -> Answer:
            async with places:
                return await ask(client, seed, max_tokens)

        started = time.monotonic()
        answers = await asyncio.gather(*map(one, seeds))
        return answers, time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description="Structured answers: valid, and the same in any company.")
    parser.add_argument("url", help="of a running server")
    parser.add_argument("--schemas", type=int, default=200)
    parser.add_argument("--together", type=int, default=32, help="asked at once")
    parser.add_argument("--alone", type=int, default=40, help="asked once more, one after another")
    parser.add_argument("--max-tokens", type=int, default=700)
    arguments = parser.parse_args()
    seeds = [seed for seed in range(2 * arguments.schemas) if not is_recursive(seed)][: arguments.schemas]
    together, seconds = asyncio.run(ask_all(arguments.url, seeds, arguments.together, arguments.max_tokens))
    alone, _ = asyncio.run(ask_all(arguments.url, seeds[: arguments.alone], 1, arguments.max_tokens))
    verdicts = [answer.verdict(seed) for seed, answer in zip(seeds, together, strict=True)]
    same = sum(one == other for one, other in zip(alone, together, strict=False))
    fit, cut, misfit = (verdicts.count(each) for each in ("fits", "cut", "does not fit"))
    rate = sum(answer.num_tokens for answer in together) / seconds
    print(_HEAD)
    print("|---" * 7 + "|")
    print(f"| {len(together)} | {fit} | {cut} | {misfit} | {rate:.0f} | {len(alone)} | {same} |")
    print(
        json.dumps(
            {"schemas": len(together), "fit": fit, "cut": cut, "misfit": misfit, "alone": len(alone), "same": same}
        )
    )
    sys.exit(bool(misfit) or same < len(alone))


if __name__ == "__main__":
    main()
