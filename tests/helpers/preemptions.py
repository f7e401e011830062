"""Two requests of which one must be preempted, however fast each of them is computed.

In a pool of N blocks both prompts have b = (N - 1) // 2 blocks, with half a block free, so both run at once: together
they leave a block to grow by. Each ends with N - b + 1 blocks. Whichever ends first has that many while the other has b
or more, and that is more than there are, unless one of the two was preempted. Nothing is shared: the prompts differ
from their first token on.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2

BLOCK = 32  # tokens


def preempting_pair(num_blocks: int) -> list[dict[str, Any]]:
    """Bodies for `/v1/completions` of a server with so many KV blocks, at least 5; both must arrive at once."""
    each = (num_blocks - 1) // 2
    last = num_blocks - each + 1
    prompt = each * BLOCK - BLOCK // 2
    max_tokens = (last - 1) * BLOCK + 2 - prompt  # the last token drawn takes no place
    return [
        {
            "prompt": [first + n % 50 for n in range(prompt)],
            "max_tokens": max_tokens,
            "ignore_eos": True,
            "temperature": temperature,
            "seed": first,
            "logprobs": 5,
        }
        for first, temperature in ((100, 0.0), (300, 0.9))
    ]


async def complete_at_once(client: httpx2.AsyncClient, bodies: list[dict[str, Any]]) -> list[Any]:
    """The choices of all the answers, asked for at the same time."""
    return list(await asyncio.gather(*(_complete(client, body) for body in bodies)))


async def complete_in_turn(client: httpx2.AsyncClient, bodies: list[dict[str, Any]]) -> list[Any]:
    """The choices of each answer, asked for after the one before."""
    return [await _complete(client, body) for body in bodies]


async def _complete(client: httpx2.AsyncClient, body: dict[str, Any]) -> Any:
    reply = await client.post("/v1/completions", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.json()["usage"]["completion_tokens"] == body["max_tokens"]
    return reply.json()["choices"]
