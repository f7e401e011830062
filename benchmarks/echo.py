#!/usr/bin/env python3
"""How long the log-probabilities of a prompt take (`echo` with `logprobs`), as evaluations ask for them.

    python benchmarks/echo.py http://127.0.0.1:8000 [http://127.0.0.1:8001] [--tokens 1000] [--rounds 3] [--json OUT]

With two servers, both are asked in turn for the same prompts, and the ratio is told. Prompts are random token ids, so
that none is in a prefix cache. Beside it, the same prompt without `echo`: what only reading it takes.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path
from typing import Any

import httpx2
from record import record

_PATIENCE = 900.0  # seconds
_VOCABULARY = 40_000


def seconds(url: str, prompt: list[int], **fields: Any) -> float:
    """Seconds of a request for this prompt."""
    began = time.monotonic()
    body = {"prompt": prompt, "temperature": 0, **fields}
    reply = httpx2.post(f"{url}/v1/completions", json=body, timeout=_PATIENCE, trust_env=False)
    reply.raise_for_status()
    answer = reply.json()
    if fields.get("echo"):
        found = answer["choices"][0]["logprobs"]["token_logprobs"]
        assert len(found) >= len(prompt)
        assert all(value < 0 for value in found[1 : len(prompt)])
    return time.monotonic() - began


def new_prompt(num_tokens: int) -> list[int]:
    return [random.randrange(1000, _VOCABULARY) for _ in range(num_tokens)]  # noqa: S311  # noise, no secret


def measure(urls: list[str], num_tokens: int, rounds: int) -> list[dict[str, Any]]:
    """Each server's times, round by round."""
    found: list[dict[str, Any]] = [{"url": url, "echo": [], "prefill": []} for url in urls]
    for each in found:
        seconds(each["url"], new_prompt(20), max_tokens=1, echo=True, logprobs=1)  # it has served before
    for number in range(rounds):
        scored, read = new_prompt(num_tokens), new_prompt(num_tokens)
        for each in found if number % 2 else reversed(found):
            each["echo"].append(seconds(each["url"], scored, max_tokens=1, echo=True, logprobs=1))
            each["prefill"].append(seconds(each["url"], read, max_tokens=1))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", nargs="+", metavar="url")
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    servers = measure(arguments.urls, arguments.tokens, arguments.rounds)
    for each in servers:
        echo, prefill = statistics.median(each["echo"]), statistics.median(each["prefill"])
        print(f"{each['url']}: echo {echo:.2f} s, reading alone {prefill:.2f} s")
    figures: dict[str, Any] = {"tokens": arguments.tokens, "servers": servers}
    if len(servers) > 1:
        ratios = [a / b for a, b in zip(servers[0]["echo"], servers[1]["echo"], strict=True)]
        figures["ratio"] = statistics.median(ratios)
        print(f"echo takes {figures['ratio']:.2f} times as long on the first as on the second")
    record("echo", figures, arguments.json)


if __name__ == "__main__":
    main()
