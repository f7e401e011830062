#!/usr/bin/env python3
"""How often do answers repeat themselves at a lower temperature?

    python benchmarks/loops.py http://127.0.0.1:8000 [--temperatures 0.3 0.6] [--seeds 2] [--max-tokens 400]

Asks a running server (`antiphon serve MODEL --no-loop-guard --degrade off`) sixty questions at each temperature, with
top_p 0.95. An answer counts as a loop if its tokens ever end in one by the definition that the server's guard of
thoughts uses (`engine/worker/repetition.py`): the same run of up to 128 tokens at least four times, and over at least
128 tokens. Prints a table with 95 % intervals (Wilson's) and a comparison by question and seed (exact sign test), and
JSON on the last line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from dataclasses import dataclass

import httpx2
from questions import QUESTIONS

from antiphon.engine.worker.repetition import CHECK_EVERY, WINDOW, is_loop

_PATIENCE = 1200.0  # seconds
_TOGETHER = 32  # questions asked at once
_Z = 1.96  # of a 95 % interval


@dataclass(frozen=True)
class Answer:
    """One answer."""

    loops_at: int | None  # the number of tokens at which a loop is noticed
    num_tokens: int
    finish_reason: str


def first_loop(token_ids: list[int]) -> int | None:
    """After how many tokens an answer is in a loop; None: never."""
    for end in range(CHECK_EVERY, len(token_ids) + 1, CHECK_EVERY):
        if is_loop(token_ids[max(0, end - WINDOW) : end], end):
            return end
    return None


async def ask(client: httpx2.AsyncClient, question: str, temperature: float, seed: int, max_tokens: int) -> Answer:
    body = {
        "messages": [{"role": "user", "content": question}],
        "temperature": temperature,
        "top_p": 0.95,
        "seed": seed,
        "max_tokens": max_tokens,
        "return_token_ids": True,
        "degrade": "never",
    }
    reply = await client.post("/v1/chat/completions", json=body)
    reply.raise_for_status()
    (choice,) = reply.json()["choices"]
    return Answer(first_loop(choice["token_ids"]), len(choice["token_ids"]), choice["finish_reason"])


async def ask_all(url: str, temperature: float, seeds: int, max_tokens: int) -> list[Answer]:
    """The answers to all questions, by question and seed."""
    places = asyncio.Semaphore(_TOGETHER)
    async with httpx2.AsyncClient(base_url=url, timeout=_PATIENCE, trust_env=False) as client:

        async def one(question: str, seed: int) -> Answer:
            async with places:
                return await ask(client, question, temperature, seed, max_tokens)

        return await asyncio.gather(*(one(question, seed) for question in QUESTIONS for seed in range(seeds)))


def interval(count: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    share, square = count / total, _Z * _Z / total
    middle = share + square / 2
    half = _Z * math.sqrt(share * (1 - share) / total + square / (4 * total))
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))


def sign_test(one: list[Answer], other: list[Answer]) -> tuple[int, int, float]:
    """How many questions loop only in `one`, only in `other`, and the two-sided p value."""
    pairs = [(a.loops_at is not None, b.loops_at is not None) for a, b in zip(one, other, strict=True)]
    first, second = pairs.count((True, False)), pairs.count((False, True))
    total = first + second
    tail = sum(math.comb(total, k) for k in range(max(first, second), total + 1)) / 2**total
    return first, second, min(1.0, 2 * tail)


def row(temperature: float, answers: list[Answer]) -> str:
    loops = [answer.loops_at for answer in answers if answer.loops_at is not None]
    low, high = interval(len(loops), len(answers))
    cut = sum(answer.finish_reason == "length" for answer in answers)
    mean = sum(answer.num_tokens for answer in answers) / len(answers)
    share = f"{len(loops) / len(answers):.1%} ({low:.1%} to {high:.1%})"
    return f"| {temperature:g} | {len(answers)} | {len(loops)} | {share} | {cut} | {mean:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="How often answers repeat themselves.")
    parser.add_argument("url", help="of a running server")
    parser.add_argument("--temperatures", type=float, nargs=2, default=[0.3, 0.6])
    parser.add_argument("--seeds", type=int, default=2, help="answers to each question")
    parser.add_argument("--max-tokens", type=int, default=400)
    arguments = parser.parse_args()
    found = {
        temperature: asyncio.run(ask_all(arguments.url, temperature, arguments.seeds, arguments.max_tokens))
        for temperature in arguments.temperatures
    }
    print("| temperature | answers | loops | share (95 % interval) | cut at the limit | mean tokens |")
    print("|---" * 6 + "|")
    for temperature, answers in found.items():
        print(row(temperature, answers))
    one, other = arguments.temperatures
    first, second, p = sign_test(found[one], found[other])
    print(f"\nOnly at {one:g}: {first}. Only at {other:g}: {second}. Two-sided p: {p:.3g}.")
    counts = {f"{key:g}": sum(each.loops_at is not None for each in answers) for key, answers in found.items()}
    print(json.dumps({"answers": len(found[one]), "loops": counts, "p": p, "max_tokens": arguments.max_tokens}))


if __name__ == "__main__":
    main()
