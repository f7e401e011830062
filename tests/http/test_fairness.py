"""One key floods the server while another asks one question after another, over HTTP.

Waiting is counted in tokens that the engine generates for the flood meanwhile, so a slow machine changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest
from http_server import Served, events, serving, until
from patience import PATIENCE

from antiphon.api_keys import ApiKey, read_api_keys
from antiphon.config import ServerConfig
from antiphon.engine.service import OUTPUT_WEIGHT
from antiphon.engine.worker.turns import max_lead
from antiphon.errors import ConfigError
from antiphon.request import GenerateRequest, ServiceTier, Terms, TokenEvent

PLACES, BATCH, CONTEXT = 8, 32, 128
# The tokens that a waiting client may see another one get, from `turns`.
BOUND = 2 * max_lead(PLACES, BATCH, CONTEXT) / OUTPUT_WEIGHT
ENGINE: dict[str, Any] = {"max_num_sequences": PLACES, "max_batch_tokens": BATCH}
FAKE = {"step_seconds": 0.03, "context_length": CONTEXT, "eos_token_id": -1}


def keys(tmp_path, lines: str = "greedy: k1\nmodest: k2\n") -> tuple[ApiKey, ...]:
    path = tmp_path / "keys"
    path.write_text(lines)
    return read_api_keys([], str(path))


class Watch:
    """Counts the tokens of the flood, and notes the count at each of the other's arrivals and first tokens."""

    def __init__(self, server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[GenerateRequest] = []
        self.num_tokens = 0  # of the flood, so far
        self.arrived: dict[str, int] = {}
        self.waited: list[int] = []
        generate_all: Callable[..., Any] = server.engine.generate_all

        def noting(requests: Sequence[GenerateRequest], terms: Terms, **options: Any) -> Any:
            self.requests += requests
            for request in requests:
                if request.sampling.max_tokens == 1:
                    self.arrived[request.request_id] = self.num_tokens
            return generate_all(requests, terms, **options)

        monkeypatch.setattr(server.engine, "generate_all", noting)
        server.engine.subscribe(self._take)

    @property
    def still_waiting(self) -> int:
        """What the other's unanswered request has waited."""
        return max((self.num_tokens - since for since in self.arrived.values()), default=0)

    def _take(self, event: TokenEvent) -> None:
        if event.token_id is None:
            return
        if event.request_id in self.arrived:
            self.waited.append(self.num_tokens - self.arrived.pop(event.request_id))
        else:
            self.num_tokens += 1


async def flood(server: Served, stack: AsyncExitStack, key: str) -> list[asyncio.Task[Any]]:
    """200 requests at once."""
    limits = httpx2.Limits(max_connections=None)
    client = httpx2.AsyncClient(base_url=server.url, limits=limits, timeout=PATIENCE, trust_env=False)
    await stack.enter_async_context(client)
    tasks = [asyncio.create_task(ask(client, key, number, max_tokens=50)) for number in range(200)]
    await until(lambda: server.engine.counters.running == 200)
    return tasks


async def ask(client: httpx2.AsyncClient, key: str, number: int, **fields: Any) -> Any:
    body = {"prompt": f"{number} times", **fields}
    return await client.post("/v1/completions", json=body, headers={"x-api-key": key})


async def test_a_flood_of_one_key_does_not_delay_another(tmp_path, monkeypatch):
    async with AsyncExitStack() as stack:
        settings = {"api_keys": keys(tmp_path), "max_queued_requests": 600, **ENGINE}  # room for all of the flood
        server = await stack.enter_async_context(serving(tmp_path, fake=FAKE, **settings))
        watch = Watch(server, monkeypatch)
        tasks = await flood(server, stack, "k1")
        for number in range(5):
            reply = await ask(server.http, "k2", number, max_tokens=1)
            assert reply.status_code == 200
        assert len(watch.waited) == 5
        assert max(watch.waited) <= BOUND
        assert server.engine.counters.running > 100, "the flood was over before"
        for task in tasks:
            task.cancel()


async def test_without_fair_shares_a_flood_delays_everybody(tmp_path, monkeypatch):
    """The same with the setting off: so the test above can fail."""
    async with AsyncExitStack() as stack:
        settings = {"api_keys": keys(tmp_path), "fairness": "none", **ENGINE}
        server = await stack.enter_async_context(serving(tmp_path, fake=FAKE | {"step_seconds": 0.0}, **settings))
        watch = Watch(server, monkeypatch)
        tasks = await flood(server, stack, "k1")
        waiting = asyncio.create_task(ask(server.http, "k2", 0, max_tokens=1))
        await until(lambda: watch.waited or watch.still_waiting > 2 * BOUND)
        assert max(watch.waited, default=watch.still_waiting) > 2 * BOUND
        for task in [*tasks, waiting]:
            task.cancel()


@pytest.mark.parametrize(
    ("fairness", "has_keys", "identity"),
    [("key", True, "modest"), ("key", False, ""), ("address", True, "modest"), ("address", False, "127.0.0.1")],
)
async def test_who_shares_a_share(tmp_path, monkeypatch, fairness, has_keys, identity):
    api_keys = keys(tmp_path, "greedy: k1\nmodest: k2 weight=3\n") if has_keys else ()
    async with serving(tmp_path, api_keys=api_keys, fairness=fairness) as server:
        watch = Watch(server, monkeypatch)
        await ask(server.http, "k2", 0, max_tokens=2)
        (request,) = watch.requests
        assert (request.fairness_id, request.fairness_weight) == (identity, 3 if has_keys else 1)


async def test_flex_reaches_the_engine(tmp_path, monkeypatch):
    async with serving(tmp_path) as server:
        watch = Watch(server, monkeypatch)
        for ask in (server.chat, server.complete):
            for tier, used in (("flex", "flex"), ("auto", "default"), (None, None)):
                answer = (await ask(service_tier=tier, max_tokens=2)).json()
                assert answer.get("service_tier") == used, "it is told to those who ask for one"
        for tier, used in (("flex", "flex"), ("priority", "default"), (None, "default")):
            body = {"input": "Hello", "service_tier": tier, "max_output_tokens": 16}
            assert (await server.http.post("/v1/responses", json=body)).json()["service_tier"] == used
        flex, default = ServiceTier.FLEX, ServiceTier.DEFAULT
        tiers = [request.service_tier for request in watch.requests]
        assert tiers == [flex, default, default] * 3


async def test_each_chunk_of_a_stream_says_which_tier_was_used(tmp_path):
    async with serving(tmp_path) as server:
        for ask in (server.chat, server.complete):
            chunks = events((await ask(service_tier="flex", stream=True, max_tokens=3)).text)
            assert {chunk["service_tier"] for chunk in chunks} == {"flex"}
            chunks = events((await ask(stream=True, max_tokens=3)).text)
            assert not [chunk for chunk in chunks if "service_tier" in chunk]


def test_only_known_kinds_of_fairness_are_accepted():
    with pytest.raises(ConfigError, match="--fairness is 'client'; choose one of key, address, none"):
        ServerConfig(fairness="client")
