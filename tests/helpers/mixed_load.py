"""Clients of every kind at once, so that every panel of a dashboard has something to show.

They chat, continue texts, store responses, leave early, retry, ask for the impossible, are too impatient, have no key,
or exceed their rate limit.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx2

SYSTEM = {
    "role": "system",
    "content": "You are a patient teacher. Explain each step, and say what follows from it. " * 4,
}
QUESTIONS = (
    "How much is 17 times 23?",
    "Why is the sky blue?",
    "What is a prime number?",
    "How do I bake bread?",
    "Which numbers divide 91?",
    "What does a compiler do?",
)


class MixedLoad:
    """Keeps sending requests until it is stopped; whatever is answered is fine."""

    def __init__(
        self, http: httpx2.AsyncClient, keys: Sequence[str], limited_key: str, *, pause: float, tokens: int
    ) -> None:
        """`keys`: API keys of the users; `limited_key` has a rate limit.

        `pause`: mean seconds between two requests of a user; `tokens`: at most, of an answer.
        """
        self._http, self._keys, self._limited = http, keys, limited_key
        self._pause, self._tokens = pause, tokens

    @asynccontextmanager
    async def running(self, users: int) -> AsyncIterator[None]:
        """So many users, and one of each kind that makes mistakes, until the end of the block."""
        tasks = [asyncio.create_task(self._user(number)) for number in range(users)]
        tasks.append(asyncio.create_task(self._nuisances()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [each for each in ended if not isinstance(each, asyncio.CancelledError)], ended

    async def _user(self, number: int) -> None:
        chosen = random.Random(number)  # noqa: S311
        key = self._keys[number % len(self._keys)]
        while True:
            question = {"role": "user", "content": chosen.choice(QUESTIONS)}
            body = {"messages": [SYSTEM, question], "max_tokens": chosen.randint(self._tokens // 2, self._tokens)}
            await self._post("/v1/chat/completions", body | {"stream": chosen.random() < 0.5}, key)
            await asyncio.sleep(chosen.expovariate(1 / self._pause))

    async def _nuisances(self) -> None:
        """Each kind in turn."""
        hello = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        late = hello | {"max_tokens": 200, "ignore_eos": True, "timeout": 0.3}
        key = self._keys[0]
        for turn in itertools.count():
            match turn % 10:
                case 0:
                    await self._post("/v1/chat/completions", {"messages": []}, key)
                case 1:
                    await self._post("/v1/chat/completions", hello | {"max_wait": 0.0001}, key)
                case 2:
                    await self._post("/v1/chat/completions", late, key)
                case 3:
                    await self._post("/v1/chat/completions", hello, key, {"x-stainless-retry-count": "1"})
                case 4:
                    await self._post("/v1/responses", {"input": "Hello", "max_output_tokens": 16}, key)
                case 5:
                    await self._post("/v1/chat/completions", hello | {"thinking_token_budget": 1}, key)
                case 6:
                    await self._post("/v1/chat/completions", hello, "a-wrong-key")
                case 7:
                    for _ in range(3):
                        await self._post("/v1/completions", {"prompt": "Hello", "max_tokens": 4}, self._limited)
                case 8:
                    await self._leave(key)
                case 9:
                    crowd = {"prompt": "Tell me all.", "n": 8, "max_tokens": self._tokens}
                    await asyncio.gather(*(self._post("/v1/completions", crowd, key) for _ in range(3)))
            await asyncio.sleep(self._pause / 10)

    async def _post(self, path: str, body: object, key: str, headers: dict[str, str] | None = None) -> None:
        await self._http.post(path, json=body, headers={"authorization": f"Bearer {key}"} | (headers or {}))

    async def _leave(self, key: str) -> None:
        """Begin to read an answer and go away."""
        body = {"prompt": "Tell me all.", "max_tokens": 400, "stream": True}
        headers = {"authorization": f"Bearer {key}"}
        async with self._http.stream("POST", "/v1/completions", json=body, headers=headers) as reply:
            async for _ in reply.aiter_raw():
                return
